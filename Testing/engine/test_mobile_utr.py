"""MobileUtr: its published size and cost, any channels and any image size, pruning, bundles, training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import load_bundle
from apformer.errors import ConfigError
from apformer.inference import Segmenter
from apformer.networks import NETWORK_NAMES, MobileUtr, build_network
from apformer.networks.mobile_utr import LocalAggregation, MobileUtrConfig, SparseAttention
from apformer.pruning import Macs, count_macs, count_parameters, prune_attention
from apformer.training import parse_config
from apformer.training.config import LossWeights
from apformer.training.losses import APFormerLoss
from apformer.volume import Volume
from bundle_samples import save_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from training_samples import a_trainer
from training_samples import settings as training_settings

PUBLISHED = (1, 3, 256, 256)
SMALL: dict[str, Any] = {"channels": [2, 3, 4, 8], "depths": [1, 1, 1, 2, 2], "heads": 2}


def small(dims: int = 2, **arguments: Any) -> MobileUtr:
    """A few thousand parameters; 3 logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("mobile_utr", SMALL | {"spatial_dims": dims, "out_channels": 3} | arguments)
    assert isinstance(network, MobileUtr)
    return network


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def macs() -> Macs:
    """Of the published base network."""
    return count_macs(MobileUtr(), PUBLISHED)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 1_390_305),
        ({"out_channels": 9}, 1_390_441),
        ({"size": "large"}, 6_209_217),
        ({"spatial_dims": 3, "in_channels": 1, "out_channels": 14}, 2_758_270),
    ],
)
def test_the_network_has_as_many_parameters_as_the_released_one(arguments: dict[str, Any], parameters: int):
    with torch.device("meta"):
        assert count_parameters(MobileUtr(**arguments)) == parameters


def test_the_base_network_costs_what_the_released_code_costs(macs: Macs):
    assert macs.total / 1e9 == pytest.approx(3.246, abs=0.001)
    # LGL: 256 of 1024 tokens, 64 wide; bottleneck: 1024 tokens, 128 wide; q.k and A.v in 3 blocks each
    assert macs.attention == 3 * 2 * 256 * 256 * 64 + 3 * 2 * 1024 * 1024 * 128


def test_counted_as_published_the_base_network_costs_what_is_published(macs: Macs):
    """The counter behind the published 2.51 G (thop) leaves out products of activations, and counts norms and
    upsampling: 4 per normed value (2 of them for scale and shift), 11 per value of bilinear interpolation."""
    network = MobileUtr().eval()
    counted = {"norm": 0, "upsampling": 0}

    def watch(kind: str, numel: Any) -> Any:
        return lambda module, inputs, output: counted.update({kind: counted[kind] + numel(inputs, output)})

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.register_forward_hook(watch("norm", lambda inputs, output: inputs[0].numel()))
        elif isinstance(module, nn.Upsample):
            module.register_forward_hook(watch("upsampling", lambda inputs, output: output.numel()))
    with torch.no_grad():
        network(torch.zeros(PUBLISHED))
    layers = macs.without_attention
    assert layers / 1e9 == pytest.approx(2.416, abs=0.001)
    assert (layers + 4 * counted["norm"] + 11 * counted["upsampling"]) / 1e9 == pytest.approx(2.507, abs=0.001)


def test_the_registry_names_the_network():
    assert "mobile_utr" in NETWORK_NAMES


@settings(max_examples=12, deadline=None)
@given(
    dims_and_size=st.one_of(
        st.tuples(st.just(2), st.tuples(*[st.integers(1, 40)] * 2)),
        st.tuples(st.just(3), st.tuples(*[st.integers(1, 20)] * 3)),
    ),
    channels=st.integers(1, 5),
)
def test_an_image_of_any_size_and_channels_gives_logits_of_that_size(
    dims_and_size: tuple[int, tuple[int, ...]], channels: int
):
    dims, size = dims_and_size
    network = small(dims, in_channels=channels)
    image = torch.rand(1, channels, *size)
    for mode in (True, False):
        with torch.no_grad():
            logits, auxiliaries = network.train(mode)(image, auxiliaries=True)
        assert logits.shape == (1, 3, *size)
        assert logits.isfinite().all()
    if max(size) > 8:
        assert auxiliaries.kept.shape == (1, *(-(-n // 8) for n in size))


def test_padding_repeats_the_edge_so_a_padded_image_gives_the_same_logits():
    network = small().eval()
    image = torch.rand(1, 3, 21, 24)
    by_hand = torch.cat([image, image[:, :, -1:].expand(-1, -1, 3, -1)], dim=2)
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(by_hand)[:, :, :21])


@pytest.mark.parametrize("dims", [2, 3])
def test_each_image_of_a_batch_is_segmented_as_if_alone(dims: int):
    network = small(dims).eval()
    images = torch.rand(3, 3, *(17, 24, 16)[:dims])
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_local_aggregation_is_three_gates_that_start_from_the_features():
    config = MobileUtrConfig(**SMALL)
    local = LocalAggregation(config, 4).eval()
    features = torch.randn(2, 4, 6, 5)
    with torch.no_grad():
        first = features * (0.5 + torch.sigmoid(local.position(features)))
        second = first * (0.5 + torch.sigmoid(local.mixing(first)))
        expected = second * (0.5 + torch.sigmoid(local.ffn(second)))
        torch.testing.assert_close(local(features), expected)


@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (2, 3, 4)])
def test_only_tokens_on_even_places_attend_and_hand_on_to_their_neighbours(grid: tuple[int, ...]):
    config = MobileUtrConfig(spatial_dims=len(grid), **SMALL)
    attention = SparseAttention(config, 4).eval()
    attention.norm, attention.to_out = nn.Identity(), nn.Identity()
    nn.init.ones_(attention.spread.weight)
    nn.init.zeros_(attention.spread.bias)  # every cell of 2 x 2 gets what its even token found
    tokens = torch.randn(1, int(np.prod(grid)), 4)
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, len(grid))
    even = torch.from_numpy((places % 2 == 0).all(1))
    with torch.no_grad():
        found = attention(tokens, grid)[0]
        q, k, v = attention.to_qkv(tokens[0, even]).chunk(3, dim=-1)
        heads = [slice(2 * head, 2 * head + 2) for head in range(2)]
        parts = [(q[:, h] @ k[:, h].t() / 2**0.5).softmax(-1) @ v[:, h] for h in heads]
    of_even = dict(zip(map(tuple, places[even.numpy()]), torch.cat(parts, dim=1), strict=True))
    expected = torch.stack([of_even[tuple(place - place % 2)] for place in places])
    torch.testing.assert_close(found, expected)


def cancelled_by_a_norm(network: nn.Module) -> set[str]:
    """Biases of convolutions directly before a norm, which takes them out again."""
    names = {module: name for name, module in network.named_modules()}
    norms = (nn.BatchNorm2d, nn.InstanceNorm3d)
    pairs = [pair for m in network.modules() if isinstance(m, nn.Sequential) for pair in pairwise(m)]
    return {f"{names[before]}.bias" for before, after in pairs if isinstance(after, norms)}


@pytest.mark.parametrize("dims", [2, 3])
def test_every_parameter_gets_a_gradient_in_training(dims: int):
    network = small(dims, drop_path=0.0).train()
    torch.manual_seed(1)
    image, target = torch.rand(2, 3, *(24, 32, 16)[:dims]), torch.randn(2, 3, *(24, 32, 16)[:dims])
    (network(image) * target).sum().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-6}
    assert without <= cancelled_by_a_norm(network)


def test_branches_are_left_out_in_training_only():
    network = small(drop_path=0.9)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    image = torch.rand(2, 3, 24, 32)
    with torch.no_grad():
        torch.manual_seed(2)
        assert not torch.equal(network.train()(image), network.train()(image))
        assert torch.equal(network.eval()(image), network.eval()(image))


def test_bfloat16_autocast_stays_close_to_float32():
    network, image = small().eval(), torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough: Tensor = network(image)
    assert (rough.float() - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_losses_take_its_auxiliaries(dims: int):
    logits, auxiliaries = small(dims)(torch.rand(2, 3, *[16] * dims), auxiliaries=True)
    labels = torch.randint(3, (2, 1, *[16] * dims))
    losses = APFormerLoss(LossWeights())(logits, auxiliaries, labels, ssa_layer=0)
    assert set(losses) == {"segmentation", "total"}
    layer = 10 * 8 * 8 + 2 * 8 * 8  # per token: q, out, FFN; k, v
    tokens = 2**dims
    assert auxiliaries.transformer_macs.tolist() == [2 * (tokens * layer + 2 * 8 * tokens * tokens)] * 2


def test_the_loop_trains_it(a_dataset: Path, tmp_path: Path):
    arguments = {"name": "mobile_utr", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, **SMALL}
    stage = {"epochs": 1, "size": [16, 16, 16], "batch_size": 2, "learning_rate": 0.01, "validate_every": 1}
    config = parse_config(training_settings(network=arguments, stages=[stage]))
    weights = a_trainer(a_dataset, config, tmp_path / "run").run()
    assert set(weights) == set(build_network(config.network, config.network_arguments).state_dict())


@pytest.mark.parametrize("dims", [2, 3])
def test_pruning_gates_find_the_bottleneck_and_skip_what_they_prune(dims: int):
    network, size = small(dims).eval(), (40, 48, 32)[:dims]
    image, tokens = torch.rand(2, 3, *size), []
    network.bottleneck.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    with torch.no_grad():
        expected = network(image)
        pruned = prune_attention(network, sample=image[:1])
        assert [cost.per_query for cost in pruned.costs] == [10 * 8 * 8] * 2
        pruned.gating = "off"
        logits, everything = pruned(image, auxiliaries=True)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        margins = everything.prune_logits[:, 1] - everything.prune_logits[:, 0]
        pruned.query_gate.threshold.fill_(float(margins.median()))
        pruned.query_gate.ring = 0
        pruned.gating = "soft"
        soft, _ = pruned(image, auxiliaries=True)
        pruned.gating = "hard"
        hard, kept = pruned(image, auxiliaries=True)
        torch.testing.assert_close(hard, soft, rtol=1e-4, atol=1e-5)
        unpruned, _, skipped = tokens[-3:]
        assert (skipped - unpruned).abs().max() > 1e-2
        assert 0 < kept.kept.mean() < 1
        assert (kept.transformer_macs < everything.transformer_macs).all()
        odd = (29, 17, 12)[:dims]
        assert pruned(torch.rand(1, 3, *odd)).shape == (1, 3, *odd)
        torch.testing.assert_close(pruned.restore()(image), expected, rtol=1e-4, atol=1e-5)


def test_a_bundle_holds_it_and_the_segmenter_runs_it(tmp_path: Path):
    arguments = SMALL | {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    network = small(3, **arguments)
    save_sample(
        tmp_path / "model",
        network_name="mobile_utr",
        network_arguments=arguments,
        state_dict=network.state_dict(),
    )
    segmenter = Segmenter(load_bundle(tmp_path / "model"), "cpu")
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        expected = network.half().float().eval()(image)  # a bundle stores fp16
        torch.testing.assert_close(segmenter.network(image), expected, rtol=1e-3, atol=1e-4)
    volume = Volume(np.random.default_rng(0).integers(0, 99, (9, 20, 18)).astype(np.int16), np.eye(4), "MR")
    result = segmenter.segment(volume, kept_tokens=True)
    assert result.labels.array.shape == volume.array.shape
    assert result.kept_tokens is not None and result.kept_tokens.array.all()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"in_channels": 0}, "in_channels"),
        ({"out_channels": 1.5}, "out_channels"),
        ({"size": "huge"}, "size"),
        ({"channels": (16, 32, 64)}, "channels"),
        ({"channels": (16, 32, 64, 10**9)}, "channels"),
        ({"depths": (1, 1, 1, 1)}, "depths"),
        ({"depths": (1, 1, 1, 0, 1)}, "depths"),
        ({"kernels": (3, 3, 4)}, "kernels"),
        ({"heads": 3}, "heads"),
        ({"norm": "layer"}, "norm"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_their_name(arguments: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        build_network("mobile_utr", arguments)
