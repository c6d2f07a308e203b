"""Token-sparse UNETR: its published size and cost, what is dropped and put back, bundles, training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.benchmarks import sparse_unetr as benchmark
from apformer.bundles import load_bundle
from apformer.errors import ConfigError, PruningError
from apformer.inference import Segmenter
from apformer.networks import NETWORK_NAMES, SparseUnetr, build_network
from apformer.networks.sparse_unetr import SparseUnetrConfig, TokenAssembly, TokenPruner, fixed_positions, take
from apformer.networks.unetr_decoder import InstanceNorm
from apformer.pruning import count_macs, count_parameters, prune_attention
from apformer.training import parse_config
from apformer.training.config import LossWeights
from apformer.training.losses import APFormerLoss
from apformer.volume import Volume
from bundle_samples import save_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from training_samples import a_trainer
from training_samples import settings as training_settings

SMALL: dict[str, Any] = {
    "hidden_size": 12,
    "mlp_dim": 16,
    "num_heads": 3,
    "num_layers": 4,
    "feature_size": 2,
    "skip_after": [1, 2, 3],
    "prune_after": [1, 2, 3],
    "prune_ratio": 0.5,
}


def small(dims: int = 3, **arguments: Any) -> SparseUnetr:
    """A few thousand parameters; 3 classes; positions for 4 x 3 (x 2) patches of 8."""
    chosen = SMALL | {"spatial_dims": dims, "out_channels": 3, "image_size": [32, 24, 16][:dims]} | arguments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("sparse_unetr", chosen)
    assert isinstance(network, SparseUnetr)
    return network


def an_image(dims: int = 3, batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, *(32, 24, 16)[:dims], generator=torch.Generator().manual_seed(1))


def at_published_size(**arguments: Any) -> SparseUnetr:
    """Without memory for its weights: shapes are enough to count."""
    with torch.device("meta"):
        return SparseUnetr(**arguments).eval()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# ----------------------------------------------------------------- published size


@pytest.mark.parametrize(
    ("ratio", "gmac", "parameters"),
    [(0.0, 258.3, 93_312_942), (0.5, 165.3, 106_247_601), (0.75, 140.9, 106_247_601), (0.9, 131.8, 106_247_601)],
)
def test_at_the_published_size_it_costs_what_the_released_code_costs(ratio: float, gmac: float, parameters: int):
    network = at_published_size(prune_ratio=ratio)
    assert count_parameters(network) == parameters
    assert count_macs(network, (1, 1, 96, 96, 96)).total / 1e9 == pytest.approx(gmac, abs=0.05)


@pytest.mark.parametrize(("ratio", "kept"), [(0.9, [172, 17, 1]), (0.75, [432, 108, 27]), (0.5, [864, 432, 216])])
def test_every_place_keeps_the_whole_part_of_its_share(ratio: float, kept: list[int]):
    config, found, tokens = SparseUnetrConfig(prune_ratio=ratio), [], 1728
    for _ in range(3):
        tokens = config.kept(tokens)
        found.append(tokens)
    assert found == kept


def test_a_share_that_binary_fractions_miss_is_kept_whole_and_never_less_than_one_token():
    config = SparseUnetrConfig(prune_ratio=0.9)
    assert int(1000 * (1 - 0.9)) == 99
    assert [config.kept(n) for n in (1000, 10, 9, 1)] == [100, 1, 1, 1]


# ----------------------------------------------------------------- pruning


class Scores(nn.Module):
    """A score per token that does not depend on it."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, features: Tensor) -> Tensor:
        return self.values[None, :, None].expand(len(features), -1, 1)


def a_pruner(scores: Tensor, **arguments: Any) -> TokenPruner:
    pruner = TokenPruner(SparseUnetrConfig(**(SMALL | arguments)))
    pruner.score = Scores(scores)
    return pruner


def test_in_evaluation_the_highest_scores_stay_in_grid_order_and_ties_go_to_the_first():
    pruner = a_pruner(torch.tensor([0.1, 2.0, 0.1, -1.0, 0.1, 3.0])).eval()
    cut = pruner(torch.randn(2, 6, 12))
    assert cut.kept_index.tolist() == [[0, 1, 5]] * 2
    assert cut.dropped_index.tolist() == [[2, 3, 4]] * 2


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_choice_has_the_gradient_of_the_softmax_of_the_scores(temperature: float):
    torch.manual_seed(0)
    pruner = a_pruner(torch.randn(6), perturbation="none", temperature=temperature).train()
    tokens, kept_weight, dropped_weight = torch.randn(1, 6, 12), torch.randn(3, 12), torch.randn(3, 12)
    cut = pruner(tokens)
    assert torch.equal(cut.kept, take(tokens, cut.kept_index))  # multiplied by exactly one
    assert torch.equal(cut.dropped, take(tokens, cut.dropped_index))
    ((cut.kept * kept_weight).sum() + (cut.dropped * dropped_weight).sum()).backward()
    values = pruner.score.values.detach().clone().requires_grad_()
    soft = (F.logsigmoid(values) / temperature).softmax(0)
    gains = torch.zeros(6)
    gains[cut.kept_index[0]] = (cut.kept[0] * kept_weight).sum(-1).detach()
    gains[cut.dropped_index[0]] = -(cut.dropped[0] * dropped_weight).sum(-1).detach()
    (soft * gains).sum().backward()
    torch.testing.assert_close(pruner.score.values.grad, values.grad)


def test_in_training_noise_lets_a_token_stay_as_often_as_its_softmax_says():
    torch.manual_seed(0)
    values = torch.tensor([0.0, 1.0, -1.0, 0.5])
    pruner = a_pruner(values, prune_ratio=0.75).train()
    with torch.no_grad():
        chosen = pruner(torch.randn(4000, 4, 12)).kept_index.flatten()
    found = torch.bincount(chosen, minlength=4) / 4000
    expected = F.logsigmoid(values).softmax(0)
    assert (found - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_evaluation_is_deterministic_and_training_is_not():
    network, image = small(drop_path=0.0), an_image()
    with torch.no_grad():
        torch.manual_seed(3)
        assert torch.equal(network.eval()(image), network.eval()(image))
        assert not torch.equal(network.train()(image), network.train()(image))


def test_without_noise_training_and_evaluation_give_the_same_numbers():
    network, image = small(drop_path=0.0, perturbation="none"), an_image()
    with torch.no_grad():
        torch.testing.assert_close(network.train()(image), network.eval()(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_blocks_see_only_the_tokens_that_are_left(training: bool):
    network, lengths = small().train(training), []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[0]))
    network(an_image())
    assert lengths == [1 + 24, 1 + 12, 1 + 6, 1 + 3]


# ----------------------------------------------------------------- completion


@settings(max_examples=20, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    leading=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_completion_puts_every_token_back_in_its_place(
    grid: tuple[int, int, int], leading: bool, seed: int, data: st.DataObject
):
    assembly = TokenAssembly(SparseUnetrConfig(**SMALL))
    assembly.enter = nn.ModuleList(nn.Identity() for _ in range(4))
    assembly.blocks, assembly.norm, assembly.leave = nn.ModuleList(), nn.Identity(), nn.Identity()
    count = math.prod(grid)
    cells = torch.randn(2, count, 12)
    order = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(seed + n)) for n in range(2)])
    cuts = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=3, max_size=3)))  # groups may be empty
    places = list(order.tensor_split(cuts, dim=1))
    groups = [take(cells, place) for place in places]
    if leading:
        groups[-1] = torch.cat([torch.full((2, 1, 12), 9.0), groups[-1]], dim=1)
    completed = assembly(groups, places, grid)
    torch.testing.assert_close(completed, cells + fixed_positions(grid, 12, cells.device))


def test_completion_tells_groups_apart_by_their_tokens():
    assembly = TokenAssembly(SparseUnetrConfig(**SMALL))
    assembly.enter = nn.ModuleList(nn.Identity() for _ in range(4))
    assembly.blocks, assembly.norm, assembly.leave = nn.ModuleList(), nn.Identity(), nn.Identity()
    with torch.no_grad():
        assembly.origin.copy_(torch.arange(4.0)[:, None])
    places = [torch.tensor([[2]]), torch.tensor([[0]]), torch.tensor([[3]]), torch.tensor([[1]])]
    completed = assembly([torch.zeros(1, 1, 12)] * 4, places, (2, 2))
    assert (completed - fixed_positions((2, 2), 12, completed.device))[0, :, 0].tolist() == [1, 3, 0, 2]


def test_before_training_it_does_not_matter_which_group_a_token_is_in():
    assembly = TokenAssembly(SparseUnetrConfig(**SMALL)).eval()
    cells = torch.randn(1, 4, 12)
    completed = []
    for order in (torch.tensor([[0, 1, 2, 3]]), torch.tensor([[3, 1, 0, 2]])):
        places = list(order.split(1, dim=1))
        completed.append(assembly([take(cells, place) for place in places], places, (2, 2)))
    torch.testing.assert_close(*completed)


@settings(max_examples=12, deadline=None)
@given(
    dims_and_size=st.one_of(
        st.tuples(st.just(2), st.tuples(*[st.integers(1, 60)] * 2)),
        st.tuples(st.just(3), st.tuples(*[st.integers(1, 36)] * 3)),
    ),
    ratio=st.sampled_from([0.0, 0.5, 0.9]),
    patch=st.sampled_from([8, 16]),
)
def test_an_image_of_any_size_gives_logits_of_that_size_and_every_cell_is_completed_once(
    dims_and_size: tuple[int, tuple[int, ...]], ratio: float, patch: int
):
    dims, size = dims_and_size
    network, seen = small(dims, prune_ratio=ratio, patch_size=patch), []
    if network.assembly is not None:
        network.assembly.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[1], inputs[2])))
    for mode in (True, False):
        with torch.no_grad():
            logits, auxiliaries = network.train(mode)(torch.rand(2, 1, *size), auxiliaries=True)
        assert logits.shape == (2, 3, *size)
        assert logits.isfinite().all()
        if max(size) > patch:
            assert auxiliaries.kept.shape == (2, *(-(-n // patch) for n in size))
    for places, grid in seen:
        everywhere = torch.cat(places, dim=1).sort(1).values
        assert torch.equal(everywhere, torch.arange(math.prod(grid)).expand(2, -1))


def test_fixed_positions_are_sines_and_cosines_of_every_axis_and_differ_between_cells():
    positions = fixed_positions((3, 4), 11, torch.device("cpu"))
    assert positions.shape == (12, 11)
    assert (positions[:, 8:] == 0).all()  # 2 waves x 2 axes x 2 bands, and three columns over
    row, column = 2.0, 1.0
    rates = [1.0, 0.01]
    waves = [f(axis * rate) for axis in (row, column) for f in (math.sin, math.cos) for rate in rates]
    torch.testing.assert_close(positions[2 * 4 + 1, :8], torch.tensor(waves))
    assert len({tuple(place.tolist()) for place in positions}) == 12


# ----------------------------------------------------------------- network


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("arguments", [{}, {"prune_ratio": 0.0}, {"norm": "batch", "patch_size": 16}])
def test_every_parameter_gets_a_gradient_in_training(dims: int, arguments: dict[str, Any]):
    network = small(dims, drop_path=0.0, **arguments).train()
    torch.manual_seed(1)
    image = torch.rand(2, 1, *(64, 48, 32)[:dims])
    (network(image) * torch.randn(2, 3, *(64, 48, 32)[:dims])).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_each_image_of_a_batch_is_segmented_as_if_alone(ratio: float):
    network, images = small(prune_ratio=ratio).eval(), an_image(batch=3)
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_blocks_are_left_out_in_training_only():
    network = small(drop_path=0.9, prune_ratio=0.0)
    with torch.no_grad():
        torch.manual_seed(2)
        image = an_image()
        assert not torch.equal(network.train()(image), network.train()(image))
        assert torch.equal(network.eval()(image), network.eval()(image))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_instance_norm_in_place_gives_what_torch_gives(layout: torch.memory_format):
    features = (5 + torch.randn(2, 3, 24, 40, 32)).to(memory_format=layout)
    exact = F.instance_norm(features.double())
    with torch.no_grad():
        assert (InstanceNorm()(features.clone()) - exact).abs().max() < 1e-5
    assert (InstanceNorm()(features) - exact).abs().max() < 1e-5


def test_the_losses_take_its_auxiliaries():
    network, image = small(), an_image()
    logits, auxiliaries = network(image, auxiliaries=True)
    losses = APFormerLoss(LossWeights())(logits, auxiliaries, torch.randint(3, (2, 1, 32, 24, 16)), ssa_layer=0)
    assert set(losses) == {"segmentation", "total"}
    assert auxiliaries.token_stride == (8, 8, 8)
    assert auxiliaries.kept.shape == (2, 4, 3, 2)
    assert auxiliaries.kept.flatten(1).sum(1).tolist() == [3, 3]
    lengths = [25, 13, 7, 4, 25]  # the last one completes
    layer = 12 * 12 * 4 + 2 * 12 * 16
    assert auxiliaries.transformer_macs.tolist() == [sum(n * layer + 2 * n * n * 12 for n in lengths)] * 2


def test_the_loop_trains_it(a_dataset: Path, tmp_path: Path):
    arguments = SMALL | {"name": "sparse_unetr", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    arguments["image_size"] = [16, 16, 16]
    stage = {"epochs": 1, "size": [16, 16, 16], "batch_size": 2, "learning_rate": 0.01, "validate_every": 1}
    config = parse_config(training_settings(network=arguments, stages=[stage]))
    weights = a_trainer(a_dataset, config, tmp_path / "run").run()
    assert set(weights) == set(build_network(config.network, config.network_arguments).state_dict())


def test_pruning_gates_find_the_dense_form_and_refuse_the_sparse_one():
    image = an_image()
    dense = small(prune_ratio=0.0).eval()
    with torch.no_grad():
        expected = dense(image)
        pruned = prune_attention(dense, sample=image)
        pruned.gating = "off"
        torch.testing.assert_close(pruned(image), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(PruningError, match="the first block on"):
        prune_attention(small().eval(), sample=image, stack="blocks")


def test_a_bundle_holds_it_and_the_segmenter_runs_it(tmp_path: Path):
    arguments = SMALL | {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "image_size": [16, 16, 16]}
    network = small(**arguments)
    save_sample(
        tmp_path / "model", network_name="sparse_unetr", network_arguments=arguments, state_dict=network.state_dict()
    )
    segmenter = Segmenter(load_bundle(tmp_path / "model"), "cpu")
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        expected = network.half().float().eval()(image)  # a bundle stores fp16
        torch.testing.assert_close(segmenter.network(image), expected, rtol=1e-3, atol=1e-4)
    volume = Volume(np.random.default_rng(0).integers(0, 99, (9, 20, 18)).astype(np.int16), np.eye(4), "MR")
    assert segmenter.segment(volume).labels.array.shape == volume.array.shape


def test_the_registry_names_the_network():
    assert "sparse_unetr" in NETWORK_NAMES


def test_bfloat16_autocast_trains_with_finite_gradients():
    network = small(drop_path=0.0).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(an_image())
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert network.pruners[0].score[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"spatial_dims": 2}, "image_size"),
        ({"in_channels": 0}, "in_channels"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"num_heads": 7}, "num_heads"),
        ({"patch_size": 4}, "patch_size"),
        ({"prune_ratio": 1.0}, "prune_ratio"),
        ({"prune_ratio": -0.1}, "prune_ratio"),
        ({"prune_after": (3, 3, 9)}, "prune_after"),
        ({"prune_after": ()}, "prune_after"),
        ({"prune_after": (3, 13)}, "prune_after"),
        ({"skip_after": (4, 7)}, "skip_after"),
        ({"skip_after": (0, 4, 7)}, "skip_after"),
        ({"perturbation": "uniform"}, "perturbation"),
        ({"temperature": 0.0}, "temperature"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"norm": "layer"}, "norm"),
        ({"cls_token": "yes"}, "cls_token"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_their_name(arguments: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        build_network("sparse_unetr", arguments)


# ----------------------------------------------------------------- benchmark


def test_the_benchmark_compares_the_ratios_with_the_dense_form():
    record = benchmark.run("cpu", quick=True)
    inference, training = record["tables"]
    assert [row["ratio"] for row in inference["rows"]] == [0.0, 0.0, 0.5, 0.75, 0.9]
    assert [row["ratio"] for row in training["rows"]] == [0.0, 0.9]
    for table in record["tables"]:
        assert table["rows"][0]["speed"] == 1.0
        assert all(row["seconds"] > 0 and row["processor_seconds"] > 0 for row in table["rows"])
    gmac = {row["variant"]: row["gmac"] for row in inference["rows"]}
    assert gmac["dense"] == gmac["dense, attention written out"]
    assert "its numbers mean nothing" in benchmark.render(record)
    assert json.loads(json.dumps(record)) == record
