"""APFormer: its published size, any input size, and attention against the formula written out."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from apformer.errors import ConfigError
from apformer.networks import NETWORK_NAMES, build_network
from apformer.networks.apformer import APFormer
from apformer.networks.transformer import Attention, LayerSetting, LayerShape
from torch import Tensor


def tiny(**arguments: Any) -> APFormer:
    """A 2D network of a few thousand parameters, one token per 8 x 8 pixels; its table is for 3 x 4 tokens."""
    chosen: dict[str, Any] = {"image_size": (24, 32), "channels": (2, 3, 4, 6), "heads": 2, "head_dim": 5}
    network = build_network("apformer", chosen | {"depth": 2, "ffn_dim": 7, "out_channels": 3} | arguments)
    assert isinstance(network, APFormer)
    return network


def tiny_3d(**arguments: Any) -> APFormer:
    return tiny(spatial_dims=3, **{"image_size": (8, 24, 16), **arguments})


def with_lively_bias(network: APFormer) -> APFormer:
    """Tables start at zero; random ones make every test of the positional bias mean something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in network.layers:
            table = layer.attention.position.table
            table.copy_(torch.randn(table.shape, generator=generator))
    return network


def trainable(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def test_the_published_network_has_the_published_number_of_parameters():
    assert trainable(build_network("apformer", {"prune_head": False})) == 2_638_585


def test_the_prune_head_adds_one_weight_per_channel_and_a_bias_for_two_classes():
    # With 512 dependency thresholds on top this is the released network's 2,639,355.
    assert trainable(build_network("apformer", {})) == 2_638_585 + 2 * 128 + 2 == 2_639_355 - 512


def test_the_registry_names_the_network():
    assert "apformer" in NETWORK_NAMES


@pytest.mark.parametrize("size", [(24, 32), (40, 16), (25, 31), (9, 50), (8, 8), (3, 5), (1, 1)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_2d_image_of_any_size_gives_logits_of_that_size(size: tuple[int, int], norm: str):
    network = tiny(norm=norm, in_channels=2).eval()
    with torch.no_grad():
        logits = network(torch.rand(3, 2, *size))
    assert logits.shape == (3, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(8, 24, 16), (9, 17, 30), (2, 3, 4)])
def test_a_3d_image_of_any_size_gives_logits_of_that_size(size: tuple[int, int, int]):
    network = tiny_3d().eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, *size)).shape == (2, 3, *size)


def test_anisotropic_strides_spare_the_thin_axis():
    network = tiny_3d(image_size=(8, 16, 16), strides=[[1, 2, 2], [1, 2, 2], 2]).eval()
    assert network.config.token_stride == (2, 8, 8)
    assert network.config.base_grid == (4, 2, 2)
    with torch.no_grad():
        logits, auxiliaries = network(torch.rand(1, 1, 7, 20, 16), auxiliaries=True)
    assert logits.shape == (1, 3, 7, 20, 16)
    assert auxiliaries.prune_logits.shape == (1, 2, 4, 3, 2)


def test_auxiliaries_hold_prune_logits_per_token_and_queries_and_keys_per_layer():
    logits, auxiliaries = tiny()(torch.rand(2, 1, 24, 32), auxiliaries=True)
    assert logits.shape == (2, 3, 24, 32)
    assert auxiliaries.prune_logits.shape == (2, 2, 3, 4)
    assert [(q.shape, k.shape) for q, k in auxiliaries.queries_keys] == [((2, 2, 12, 5), (2, 2, 12, 5))] * 2


def test_without_a_prune_head_there_are_no_prune_logits():
    _, auxiliaries = tiny(prune_head=False)(torch.rand(2, 1, 24, 32), auxiliaries=True)
    assert auxiliaries.prune_logits is None


def test_each_image_of_a_batch_is_segmented_as_if_alone():
    network = with_lively_bias(tiny()).eval()
    images = torch.rand(3, 1, 20, 28)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_padding_repeats_the_edge_so_a_padded_image_gives_the_same_logits():
    network = with_lively_bias(tiny()).eval()
    image = torch.rand(1, 1, 21, 32)
    by_hand = torch.cat([image, image[:, :, -1:].expand(-1, -1, 3, -1)], dim=2)
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(by_hand)[:, :, :21])


def test_attention_is_softmax_of_scaled_products_plus_bias_times_values():
    torch.manual_seed(0)
    attention = Attention(LayerSetting(4, (2, 3), 5, 0.0), LayerShape(3, 5, 5, 1)).eval()
    torch.nn.init.normal_(attention.position.table)
    tokens = torch.randn(2, 6, 4)
    with torch.no_grad():
        found, queries, keys = attention(tokens, (2, 3))
        weight_q, weight_k, weight_v = attention.to_qkv.weight.chunk(3)  # each (heads * head_dim, width)
        bias = attention.position((2, 3))[0]
        for image in range(2):
            for head in range(3):
                rows = slice(5 * head, 5 * head + 5)
                q, k, v = (tokens[image] @ weight[rows].t() for weight in (weight_q, weight_k, weight_v))
                torch.testing.assert_close(queries[image, head], q)
                torch.testing.assert_close(keys[image, head], k)
                expected = (q @ k.t() / 5**0.5 + bias[head]).softmax(-1) @ v
                torch.testing.assert_close(found[image, :, head], expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient_in_training():
    torch.manual_seed(1)
    network = with_lively_bias(tiny(dropout=0.0)).train()
    logits, auxiliaries = network(torch.rand(2, 1, 24, 32), auxiliaries=True)
    (logits.square().mean() + auxiliaries.prune_logits.square().mean()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_a_table_learned_on_another_grid_gets_gradients_through_the_interpolation():
    network = with_lively_bias(tiny()).train()
    network(torch.rand(2, 1, 40, 24)).square().mean().backward()
    assert network.layers[0].attention.position.table.grad.abs().sum() > 0


@pytest.mark.parametrize("make", [tiny, tiny_3d])
def test_the_cached_bias_of_evaluation_gives_what_the_training_path_gives(make: Any):
    network = with_lively_bias(make(dropout=0.0)).eval()
    image = torch.rand(1, 1, *network.config.image_size)
    with_gradients = network(image).detach()
    with torch.inference_mode():
        first, second = network(image), network(image)
    torch.testing.assert_close(first, with_gradients, rtol=1e-4, atol=1e-5)
    assert torch.equal(first, second)


def test_training_works_after_an_evaluation_in_inference_mode_with_frozen_positions():
    network = with_lively_bias(tiny())
    for layer in network.layers:
        layer.attention.position.requires_grad_(False)
    image = torch.rand(2, 1, 24, 32)
    with torch.inference_mode():
        network.eval()(image)
    network.train()(image).square().mean().backward()
    assert network.layers[0].attention.to_qkv.weight.grad.abs().sum() > 0


def test_dropout_acts_in_training_only():
    network = tiny(dropout=0.5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    image = torch.rand(2, 1, 24, 32)
    with torch.no_grad():
        assert not torch.equal(network.train()(image), network.train()(image))
        assert torch.equal(network.eval()(image), network.eval()(image))


def test_a_copy_and_a_pickle_give_the_same_logits_and_carry_no_cache():
    network = with_lively_bias(tiny()).eval()
    image = torch.rand(1, 1, 24, 32)
    with torch.no_grad():
        expected = network(image)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert other.layers[0].attention.position._bias is None
            assert torch.equal(other(image), expected)


def test_a_copy_learns_on_its_own():
    network = with_lively_bias(tiny()).eval()
    other = copy.deepcopy(network)
    with torch.no_grad():
        before = network(torch.ones(1, 1, 24, 32))
        other.layers[0].attention.position.table.zero_()
        assert torch.equal(network(torch.ones(1, 1, 24, 32)), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [tiny, tiny_3d])
def test_half_precision_autocast_stays_close_to_float32(make: Any, dtype: torch.dtype):
    torch.manual_seed(2)
    network = with_lively_bias(make()).eval()
    image = torch.rand(1, 1, *network.config.image_size)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=dtype):
            rough: Tensor = network(image)
    assert rough.isfinite().all()
    tolerance = 0.05 if dtype == torch.bfloat16 else 0.01
    assert (rough.float() - exact).abs().max() <= tolerance * exact.abs().max()


def test_gradients_flow_under_bfloat16_autocast():
    network = with_lively_bias(tiny()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.rand(2, 1, 24, 32)).float().square().mean().backward()
    assert network.layers[0].attention.position.sigma.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"spatial_dims": 3}, "image_size"),
        ({"in_channels": 0}, "in_channels"),
        ({"heads": 2.5}, "heads"),
        ({"depth": True}, "depth"),
        ({"ffn_dim": 10**9}, "ffn_dim"),
        ({"channels": (16, 32, 64)}, "channels"),
        ({"channels": (16, 32, 64, -1)}, "channels"),
        ({"channels": None}, "NoneType"),
        ({"strides": (2, 2)}, "strides"),
        ({"strides": (2, 2, 3)}, "strides"),
        ({"strides": ((1, 2, 2), 2, 2)}, "strides"),
        ({"image_size": (256, 4)}, "image_size"),
        ({"image_size": (256, 10**6)}, "image_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": "much"}, "fit"),
        ({"norm": "layer"}, "norm"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_their_name(arguments: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        build_network("apformer", arguments)


def test_a_network_that_is_not_registered_is_refused_and_the_registered_ones_are_named():
    with pytest.raises(ConfigError, match=r"not registered.*apformer"):
        build_network("os.system", {})


def test_lists_from_json_are_accepted_where_tuples_are_meant():
    network = tiny(image_size=[24, 32], channels=[2, 3, 4, 6], strides=[[2, 2], 2, [2, 2]])
    assert network.config.token_stride == (8, 8)
