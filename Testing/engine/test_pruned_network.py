"""Networks with the gates of the plug-in as bundles keep them, and networks that are cut to a budget at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from apformer import networks
from apformer.bundles.preprocessing import Preprocessing
from apformer.datasets.table import make_table
from apformer.errors import ConfigError, PruningError
from apformer.networks import build_network
from apformer.networks.pruned import pruned_arguments, without_gates
from apformer.pruning import count_macs
from apformer.pruning.budget import Budget
from apformer.pruning.joint_search import JointSearch
from apformer.pruning.plugin import prune_attention
from joint_search_samples import ARGUMENTS, SPARSE, a_network, images
from torch import Tensor, nn

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning.design import Design
from apformer.finetuning.form import Form, choose_form
from apformer.finetuning.labels import LabelPlan
from apformer.finetuning.slicing import allowed_share, sliced

GATED = ("mobile_utr", "sparse_unetr", "transunet")


def never() -> None:
    """Nobody cancels."""


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("gating", ["off", "soft", "hard"])
def test_the_form_of_a_bundle_computes_what_the_gated_network_does(name: str, gating: str) -> None:
    gated = prune_attention(a_network(name), sample=images(name))
    arguments = json.loads(json.dumps(pruned_arguments(gated, name, ARGUMENTS[name])))
    again = build_network("pruned", arguments).eval()
    again.load_state_dict(gated.state_dict())
    gated.gating = again.gating = gating
    with torch.no_grad():
        for size in (None, (2, 1, 50, 80)):
            image = images(name) if size is None else torch.randn(size, generator=torch.Generator().manual_seed(5))
            (logits, said), (expected, theirs) = again(image, auxiliaries=True), gated(image, auxiliaries=True)
            assert logits.equal(expected) and said.kept.equal(theirs.kept)
    assert without_gates("pruned", arguments) == (name, json.loads(json.dumps(ARGUMENTS[name])))


def test_it_is_built_without_running_it() -> None:
    gated = prune_attention(a_network("mobile_utr"), sample=images("mobile_utr"))
    with torch.device("meta"):  # as bundles are checked before any memory is spent on them
        network = build_network("pruned", pruned_arguments(gated, "mobile_utr", ARGUMENTS["mobile_utr"]))
    assert network.state_dict().keys() == gated.state_dict().keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"base": "pruned"},
        {"base": "nothing"},
        {"plan": {"blocks": []}},
        {"plan": {"blocks": ["stem"]}},
        {"plan": {"blocks": ["nowhere"]}},
        {"plan": {"tokens": [2, [8, 8], 16]}},
        {"plan": {"tokens": [0, [0, 8], 16]}},
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    gated = prune_attention(a_network("mobile_utr"), sample=images("mobile_utr"))
    arguments = pruned_arguments(gated, "mobile_utr", ARGUMENTS["mobile_utr"])
    plan = {**arguments["plan"], **changes.get("plan", {})}
    with pytest.raises((ConfigError, AttributeError)):
        build_network("pruned", {**arguments, **changes, "plan": plan})


# ------------------------------------------------------------------------------------------------ cut at once


def examples(name: str) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(image, torch.randint(3, (1, *image.shape[1:]), generator=generator)) for image in images(name)]


def test_what_contributes_nothing_goes_first_and_is_not_missed() -> None:
    network, image = a_network("mobile_utr"), images("mobile_utr")
    blocks = dict(network.named_modules())
    names = [name for name in blocks if name.startswith("bottleneck.layers.") and name.count(".") == 2]
    with torch.no_grad():
        for name in names:
            blocks[name].linear2.weight[:, ::2] = 0.0  # every second hidden channel goes nowhere
    search = JointSearch(network, sample=image, patches=False, pixel_channels=0)
    seen = zip(search.blocks, search.whole.tokens, strict=True)
    idle = sum(2 * block.width * (block.hidden // 2) * tokens for block, tokens in seen)
    budget = Budget(speed=search.whole.macs / (search.whole.macs - idle))
    small = sliced(network, examples("mobile_utr"), image[:1], budget, never)
    assert [block.hidden for block in small.blocks] == [block.hidden // 2 for block in search.blocks]
    assert [block.dims for block in small.blocks] == [block.dims for block in search.blocks]
    with torch.no_grad():
        torch.testing.assert_close(small(image), network(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [Budget(keep=0.5), Budget(speed=1.1)])
def test_the_cut_network_costs_no_more_than_the_budget_allows(budget: Budget) -> None:
    arguments = {**SPARSE, "prune_ratio": 0.5}
    torch.manual_seed(0)
    network, image = build_network("sparse_unetr", arguments).eval(), images("sparse_unetr")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small = sliced(network, examples("sparse_unetr"), image[:1], budget, never)
    share = allowed_share(JointSearch(network, sample=image[:1], patches=False, pixel_channels=0), budget)
    left = count_macs(small, (1, 1, 64, 64)).total / count_macs(network, (1, 1, 64, 64)).total
    assert share - 0.05 < left <= share < 1
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items()), "it stays as it is"


# ------------------------------------------------------------------------------------------------ which form


class Plain(nn.Module):
    """Without attention."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image)


def a_form(name: str, arguments: dict[str, Any], budget: str | None) -> Form:
    """Of a new network with one label."""
    settings = Preprocessing(2, "acquired", None, (64, 64), {"kind": "percentile", "lower": 0.5, "upper": 99.5})
    label = next(iter(make_table(["Ball"])))
    return choose_form(Design("MR", 1, settings, name, arguments), LabelPlan((label,), {}, {}, frozenset(), ()), budget)


def test_a_budget_decides_the_form_and_without_one_gates_are_taken_out() -> None:
    given = {name: a_form(name, ARGUMENTS[name], "keep=0.5") for name in ARGUMENTS}
    assert {name: (form.network, form.budget) for name, form in given.items()} == {
        "apformer": ("apformer", "gates"), "mobile_utr": ("pruned", "gates"), "sparse_unetr": ("pruned", "gates"),
        "transunet": ("pruned", "gates"),
    }  # fmt: skip
    sparse = {**SPARSE, "prune_ratio": 0.5}
    assert a_form("sparse_unetr", sparse, "keep=0.5") == Form("sparse_unetr", {**sparse, "out_channels": 2}, "slices")
    for name, form in given.items():
        assert a_form(form.network, form.arguments, None) == Form(name, {**ARGUMENTS[name], "out_channels": 2})


def test_a_network_without_attention_cannot_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks._REGISTRY, "plain", Plain)
    assert a_form("plain", {}, None).network == "plain"
    with pytest.raises(PruningError, match="no transformer blocks of a known kind"):
        a_form("plain", {}, "keep=0.5")
