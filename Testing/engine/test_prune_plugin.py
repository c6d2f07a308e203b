"""Pruning other people's networks: both forms agree, the gates learn, costs are true, the plain network comes back."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from apformer.errors import PruningError
from apformer.pruning import count_macs
from apformer.pruning.plugin import HEAD_WIDTH, PruneHead, prune_attention
from apformer.training.config import LossWeights
from apformer.training.losses import APFormerLoss
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.blocks import TransformerBlock
from monai.networks.nets import UNETR
from prune_samples import (
    NETWORKS,
    EncoderSegmenter,
    a_network,
    a_unetr,
    an_image,
    assert_close,
    assert_same,
    pruned_at,
    tensors_in,
    with_auxiliaries,
    with_some_pruned,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

each_network = pytest.mark.parametrize("name", NETWORKS)


# The three ways to run


@each_network
@pytest.mark.parametrize("gating", ["off", "soft", "hard"])
def test_with_every_token_kept_and_no_dependency_gate_the_result_is_the_plain_networks(name: str, gating: str):
    image = an_image(name)
    network = a_network(name)
    with torch.no_grad():
        plain = network(image)
    pruned = prune_attention(network, sample=image, prune_keys=False)
    nn.init.constant_(pruned.query_gate.threshold, -1e4)
    found, auxiliaries = with_auxiliaries(pruned, image, gating)
    assert auxiliaries.kept.min() == 1
    assert_close(found, plain)


@each_network
def test_gates_that_keep_every_token_and_dependency_change_nothing(name: str):
    """Here the hard form gathers: its shortcut for whole images is for networks without dependency gates."""
    pruned, image = pruned_at(name, [1.0] * 3)
    for gate in pruned.dependency:
        nn.init.constant_(gate.gate, -200.0)  # thresholds at the weakest key
    found, _ = with_auxiliaries(pruned, image, "hard")
    with torch.no_grad():
        assert_close(found, pruned.restore()(image), 5e-5)  # 1e-6 in every normaliser


@each_network
@pytest.mark.parametrize("prune_keys", [True, False])
def test_soft_and_hard_agree_for_images_with_none_few_some_and_all_tokens_kept(name: str, prune_keys: bool):
    pruned, image = pruned_at(name, [0.0, 0.2, 0.6, 1.0], prune_keys)
    for gate in pruned.dependency:
        nn.init.constant_(gate.gate, 3.0)  # high thresholds, so that keys are dropped however the gates were drawn
    soft, of_soft = with_auxiliaries(pruned, image, "soft")
    hard, of_hard = with_auxiliaries(pruned, image, "hard")
    assert_close(hard, soft)
    torch.testing.assert_close(of_hard.transformer_macs, of_soft.transformer_macs)  # the same keys are alive
    assert torch.equal(of_hard.kept, of_soft.kept)
    assert torch.equal(of_hard.prune_logits, of_soft.prune_logits)
    dense = with_auxiliaries(pruned, image, "off")[1].transformer_macs
    assert (of_hard.transformer_macs[:3] < dense[:3]).all()
    keys_were_dropped = bool(of_hard.transformer_macs[3] < 0.999 * dense[3])
    assert keys_were_dropped == prune_keys


@pytest.mark.parametrize("name", ["ViT, cls token", "encoder, post-norm", "encoder, pre-norm, batch second, no bias"])
@given(shares=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=3), prune_keys=st.booleans())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_soft_and_hard_agree_for_any_batch(name: str, shares: list[float], prune_keys: bool):
    pruned, image = pruned_at(name, shares, prune_keys)
    soft, _ = with_auxiliaries(pruned, image, "soft")
    hard, _ = with_auxiliaries(pruned, image, "hard")
    assert_close(hard, soft)


@each_network
def test_without_gating_the_blocks_run_as_they_always_did(name: str):
    image, network = an_image(name), a_network(name)
    with torch.no_grad():
        plain = network(image)
    pruned = prune_attention(network, sample=image)
    pruned.gating = "off"
    with torch.no_grad():
        assert_same(pruned(image), plain)
        assert_same(pruned(image, auxiliaries=True)[0], plain)
        assert_same(network(image), plain)  # called directly, not through the wrapper


@pytest.mark.parametrize("gating", ["soft", "hard"])
@pytest.mark.parametrize("name", ["UNETR 2D", "encoder, post-norm", "encoder, post-norm, gelu, batch second"])
def test_a_pruned_token_passes_every_layer_unchanged(name: str, gating: str):
    pruned, image = pruned_at(name, [0.5, 0.0, 0.3])
    kept = pruned.query_gate.kept.flatten(1) > 0
    seen: list[tuple[Tensor, Tensor]] = []
    for module in pruned.network.modules():
        if isinstance(module, TransformerBlock | nn.TransformerEncoderLayer):
            module.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    with_auxiliaries(pruned, image, gating)
    assert len(seen) == len(pruned.costs)
    for before, after in seen:
        if "batch second" in name:
            before, after = before.transpose(0, 1), after.transpose(0, 1)
        assert torch.equal(before[~kept], after[~kept])
        assert (before[kept] != after[kept]).any(-1).all()


def test_a_cls_token_is_updated_and_read_even_when_every_other_token_is_pruned():
    pruned, image = pruned_at("ViT, cls token", [0.0, 0.0])
    (logits, hidden), auxiliaries = with_auxiliaries(pruned, image, "hard")
    assert auxiliaries.kept.shape == (2, 6, 4)
    assert auxiliaries.kept.sum() == 0
    assert not torch.equal(hidden[0][:, 0], hidden[1][:, 0])
    assert torch.equal(hidden[0][:, 1:], hidden[2][:, 1:])
    assert not torch.allclose(logits[0], logits[1])  # the cls token has looked at the images
    only_cls = sum(cost.macs(1, 1) for cost in pruned.costs)
    assert (auxiliaries.transformer_macs > only_cls).all()


def test_a_cls_token_stays_a_key_when_no_query_depends_on_it():
    """Only the cls token queries; which keys it depends on is worked out by hand, layer by layer."""
    pruned, image = pruned_at("ViT, cls token", [0.0])
    for gate in pruned.dependency:
        nn.init.zeros_(gate.weight.weight)
        nn.init.constant_(gate.gate, 100.0)  # thresholds in the middle between weakest and strongest key
    _, of_soft = with_auxiliaries(pruned, image, "soft")
    alive, expected, stood_alone = torch.ones(25, dtype=torch.bool), 0.0, False
    for cost, (queries, keys) in zip(pruned.costs, of_soft.queries_keys, strict=True):
        expected += cost.macs(1, int(alive.sum()))
        scores = torch.einsum("hd,hnd->hn", queries[0, :, 0], keys[0]) * queries.shape[-1] ** -0.5
        weights = scores[:, alive].softmax(-1)
        lowest, highest = weights.amin(-1, keepdim=True), weights.amax(-1, keepdim=True)
        needed = (weights >= (lowest + highest) / 2).any(0)
        stood_alone |= not needed[0]
        alive[alive.clone()] = needed
        alive[0] = True
    assert stood_alone
    assert float(of_soft.transformer_macs) == expected
    assert float(with_auxiliaries(pruned, image, "hard")[1].transformer_macs) == expected


# What the losses get


@each_network
def test_auxiliaries_have_the_shapes_of_the_token_grid(name: str):
    image = an_image(name, 2)
    pruned = prune_attention(a_network(name), sample=image)
    grid = tuple(n // s for n, s in zip(image.shape[2:], pruned.grid.stride, strict=True))
    tokens = torch.Size(grid).numel() + ("cls" in name)
    for gating, layers in (("off", len(pruned.costs)), ("soft", len(pruned.costs)), ("hard", 0)):
        _, auxiliaries = with_auxiliaries(pruned, image, gating)
        assert auxiliaries.prune_logits.shape == (2, 2, *grid)
        assert auxiliaries.kept.shape == (2, *grid)
        assert auxiliaries.token_stride == ((16,) if "UNETR" in name else (4,)) * len(grid)
        assert auxiliaries.transformer_macs.shape == (2,)
        assert len(auxiliaries.queries_keys) == layers
        for pair in auxiliaries.queries_keys:
            assert [rows.shape[2] for rows in pair] == [tokens, tokens]


def test_prune_logits_lie_where_their_patch_lies():
    image = torch.zeros(1, 1, 24, 16)
    image[0, 0, 8:12, 4:8] = 1.0  # row 2, column 1 of 6 x 4 patches
    pruned = prune_attention(a_network("encoder, post-norm"), sample=image)
    empty, patch = (with_auxiliaries(pruned, each, "hard")[1].prune_logits for each in (torch.zeros_like(image), image))
    different = (patch - empty)[0, 1].abs() > 1e-5
    assert different.nonzero().tolist() == [[row, column] for row in (1, 2, 3) for column in (0, 1, 2)]


@pytest.mark.parametrize("grid", [(3, 2), (2, 3, 2)])
def test_the_prune_head_reads_tokens_row_by_row_and_their_neighbours(grid: tuple[int, ...]):
    torch.manual_seed(0)
    head = PruneHead(5, len(grid))
    tokens = torch.randn(2, math.prod(grid), 5)
    with torch.no_grad():
        found = head(tokens, grid)
        hidden = head.hidden(tokens).reshape(2, *grid, HEAD_WIDTH)
        place = (1,) * len(grid)
        expected = head.around.bias.expand(2, 2).clone()
        for offset in itertools.product((-1, 0, 1), repeat=len(grid)):
            there = tuple(p + o for p, o in zip(place, offset, strict=True))
            if all(0 <= t < n for t, n in zip(there, grid, strict=True)):
                weight = head.around.weight[(slice(None), slice(None), *(o + 1 for o in offset))]
                expected += hidden[(slice(None), *there)] @ weight.T
    torch.testing.assert_close(found[(slice(None), slice(None), *place)], expected)


@each_network
def test_every_gate_and_the_prune_head_get_gradients_in_soft_mode(name: str):
    image = an_image(name)
    pruned = prune_attention(a_network(name), sample=image, safety_ring=0)
    with_some_pruned(pruned, image)
    for gate in pruned.dependency:
        nn.init.constant_(gate.gate, 0.0)
    pruned.gating = "soft"
    output, auxiliaries = pruned(image, auxiliaries=True)
    last = tensors_in(output)[-1] if "ViT" in name else output
    (last * torch.randn_like(last)).sum().backward(retain_graph=True)
    gates = {path: p for path, p in pruned.named_parameters() if path.startswith(("query_gate", "dependency"))}
    assert len(gates) == 1 + 2 * len(pruned.costs)
    assert [path for path, p in gates.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
    pruned.zero_grad()
    auxiliaries.transformer_macs.sum().backward(retain_graph=True)
    assert pruned.query_gate.threshold.grad < 0  # a higher threshold costs less
    auxiliaries.prune_logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in pruned.prune_head.parameters())


def test_the_published_loss_trains_a_pruned_unetr_and_its_average():
    image = an_image("UNETR 2D", 2)
    labels = torch.zeros(2, 1, 64, 48, dtype=torch.long)
    labels[:, :, 20:40, 10:20] = 1
    pruned = prune_attention(a_network("UNETR 2D"), sample=image, safety_ring=0).train()
    with_some_pruned(pruned, image)
    average = AveragedModel(pruned)
    loss = APFormerLoss(LossWeights())
    optimiser = torch.optim.AdamW(pruned.parameters(), lr=3e-3)
    pruned.gating = "soft"
    totals = []
    for step in range(6):
        logits, auxiliaries = pruned(image, auxiliaries=True)
        losses = loss(logits, auxiliaries, labels, step)
        assert losses.keys() == {"segmentation", "ssa", "prune_head", "total"}
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        average.update_parameters(pruned)
        totals.append(float((losses["segmentation"] + losses["prune_head"]).detach()))
    assert totals[-1] < totals[0]
    hard, _ = with_auxiliaries(average.module.eval(), image, "hard")
    soft, _ = with_auxiliaries(average.module, image, "soft")
    assert_close(hard, soft)


# Costs


@pytest.mark.parametrize(
    "block",
    [
        TransformerBlock(12, 20, 3),
        TransformerBlock(12, 20, 3, include_fc=False, use_combined_linear=False),
        nn.TransformerEncoderLayer(12, 3, 20),
    ],
    ids=["combined", "separate projections, none behind", "torch"],
)
def test_a_blocks_cost_is_what_a_counter_counts(block: nn.Module):
    class OneBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, image: Tensor) -> Tensor:
            tokens = image.flatten(2).transpose(1, 2)
            is_torch = isinstance(self.block, nn.TransformerEncoderLayer)
            return self.block(tokens.transpose(0, 1)).transpose(0, 1) if is_torch else self.block(tokens)

    network = OneBlock()
    counted = count_macs(network, (1, 12, 5, 2))
    pruned = prune_attention(network, sample=torch.rand(1, 12, 5, 2), grid=(5, 2))
    assert pruned.costs[0].macs(10, 10) == counted.total
    assert pruned.costs[0].per_pair * 100 == counted.attention


@pytest.mark.parametrize("name", ["UNETR 3D", "ViT, cls token", "encoder, pre-norm, batch second, no bias"])
def test_the_multiplications_that_are_reported_saved_are_really_left_out(name: str):
    def counted_and_reported(share: float) -> tuple[float, float]:
        pruned, image = pruned_at(name, [share], prune_keys=False)
        _, auxiliaries = with_auxiliaries(pruned, torch.zeros_like(image), "hard")
        return count_macs(pruned, image.shape).total, float(auxiliaries.transformer_macs)

    whole, part = counted_and_reported(1.0), counted_and_reported(0.4)
    assert part[0] < whole[0]
    assert whole[0] - part[0] == whole[1] - part[1]


# The network stays its owner's


@each_network
def test_restoring_gives_back_the_same_network_bit_for_bit(name: str):
    image, network = an_image(name), a_network(name)
    network.train()
    next(network.children()).eval()  # a frozen part
    modes = [module.training for module in network.modules()]
    keys, tree = list(network.state_dict()), [(path, id(module)) for path, module in network.named_modules()]
    attributes = [list(vars(module)) for module in network.modules()]
    weights = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        plain = copy.deepcopy(network).eval()(image)
    pruned = prune_attention(network, sample=image)
    assert list(network.state_dict()) == keys
    assert [(path, id(module)) for path, module in network.named_modules()] == tree
    with torch.no_grad():
        copy.deepcopy(pruned).eval()(image)
    restored = pruned.restore()
    assert restored is network
    assert [module.training for module in network.modules()] == modes
    assert list(network.state_dict()) == keys
    assert [(path, id(module)) for path, module in network.named_modules()] == tree
    assert [list(vars(module)) for module in network.modules()] == attributes
    assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():
        assert_same(network.eval()(image), plain)


def test_a_restored_network_can_be_pruned_again_and_its_old_wrapper_refuses():
    network, image = a_network("ViT"), an_image("ViT")
    first = prune_attention(network, sample=image)
    with pytest.raises(PruningError, match="restore"):
        prune_attention(network, sample=image)
    first.restore()
    second = prune_attention(network, sample=image)
    second(image)
    with pytest.raises(PruningError, match="was restored"):
        first(image)


@pytest.mark.parametrize("name", ["UNETR 2D", "encoder, post-norm"])
def test_after_an_error_in_the_middle_of_an_image_everything_works_as_before(name: str):
    pruned, image = pruned_at(name, [0.2, 0.9])
    expected, _ = with_auxiliaries(pruned, image, "hard")
    last = [module for module in pruned.network.modules() if isinstance(module, nn.LayerNorm)][-1]

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    hook = last.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        pruned(image)
    hook.remove()
    pruned.gating = "off"
    with torch.no_grad():
        assert_same(pruned.network(image), pruned(image))
    assert_same(with_auxiliaries(pruned, image, "hard")[0], expected)


@pytest.mark.parametrize("name", ["UNETR 2D", "ViT, cls token", "encoder, pre-norm, gelu"])
def test_weights_gates_and_prune_head_travel_in_the_state_dict(name: str):
    image = an_image(name)
    pruned = prune_attention(a_network(name), sample=image)
    with_some_pruned(pruned, image)
    stream = io.BytesIO()
    torch.save(pruned.state_dict(), stream)
    stream.seek(0)
    torch.manual_seed(9)
    other = prune_attention(NETWORKS[name]().eval(), sample=image)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert_same(with_auxiliaries(other, image, "hard")[0], with_auxiliaries(pruned, image, "hard")[0])
    own = {key.partition(".")[0] for key in pruned.state_dict()}
    assert own == {"network", "prune_head", "query_gate", "dependency"}


@pytest.mark.parametrize("name", ["UNETR 2D", "encoder, post-norm"])
def test_a_copy_and_a_pickle_run_by_themselves(name: str):
    pruned, image = pruned_at(name, [0.2, 0.9])
    expected, _ = with_auxiliaries(pruned, image, "hard")
    stream = io.BytesIO()
    torch.save(pruned, stream)
    stream.seek(0)
    for other in (copy.deepcopy(pruned), torch.load(stream, weights_only=False)):
        assert_same(with_auxiliaries(other, image, "hard")[0], expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert_same(with_auxiliaries(pruned, image, "hard")[0], expected)
        assert other.restore() is not pruned.network
        assert_same(with_auxiliaries(pruned, image, "hard")[0], expected)


@pytest.mark.parametrize("gating", ["off", "soft", "hard"])
@pytest.mark.parametrize("make", [lambda: a_unetr(2, dropout_rate=0.4), lambda: EncoderSegmenter(dropout=0.4)])
def test_dropout_acts_in_training_only(make: Callable[[], nn.Module], gating: str):
    torch.manual_seed(0)
    network = make()
    image = an_image("UNETR 2D" if isinstance(network, UNETR) else "", 2)
    pruned = prune_attention(network, sample=image)
    pruned.gating = gating
    with torch.no_grad():
        assert not torch.equal(pruned.train()(image), pruned(image))
        assert torch.equal(pruned.eval()(image), pruned(image))


def test_bfloat16_autocast_stays_close_and_its_gradients_are_finite():
    for name in ("UNETR 2D", "encoder, post-norm"):
        pruned, image = pruned_at(name, [0.3, 1.0], prune_keys=False)
        exact, _ = with_auxiliaries(pruned, image, "hard")
        for gating in ("soft", "hard"):
            pruned.gating = gating
            with torch.autocast("cpu", torch.bfloat16):
                rough, _ = pruned(image, auxiliaries=True)
            assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()
            rough.float().square().mean().backward()
        gradients = [p.grad for p in pruned.network.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_gating_has_three_values():
    pruned = prune_attention(a_network("ViT"), sample=an_image("ViT"))
    assert pruned.gating == "hard"
    with pytest.raises(ValueError, match="gating must be one of"):
        pruned.gating = "open"


@pytest.mark.parametrize("gating", ["soft", "hard"])
def test_dropout_of_the_attention_weights_acts_too(gating: str):
    """The soft form draws as MONAI's block does, so that with one seed both drop the same."""
    network = a_network("ViT").train()
    for module in network.modules():
        if isinstance(module, TransformerBlock):
            module.attn.drop_weights.p = 0.4
    image = an_image("ViT")
    torch.manual_seed(3)
    plain = network(image)
    pruned = prune_attention(network, sample=image, prune_keys=False)
    nn.init.constant_(pruned.query_gate.threshold, -1e4 if gating == "soft" else 0.0)
    pruned.gating = gating
    torch.manual_seed(3)
    found = pruned(image)
    if gating == "soft":
        assert_close(found, plain)
    assert not torch.equal(pruned(image)[0], found[0])
    pruned.eval()
    assert torch.equal(pruned(image)[0], pruned(image)[0])
