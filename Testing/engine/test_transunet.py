"""TransUNet: its size as published, any image size, 2D and 3D."""

from __future__ import annotations

import pytest
import torch
from apformer.errors import ConfigError
from apformer.networks import build_network
from apformer.networks.transunet import TransUnet, standardised
from apformer.pruning import count_parameters
from apformer.pruning.plugin import prune_attention

SMALL = {
    "in_channels": 1,
    "out_channels": 3,
    "width": 4,
    "units": [1, 2, 1],
    "hidden_size": 12,
    "mlp_dim": 24,
    "num_heads": 2,
    "num_layers": 2,
    "decoder_channels": [8, 4, 4, 4, 4],
}


def test_the_published_network_has_as_many_parameters_as_the_released_one() -> None:
    with torch.device("meta"):
        network = TransUnet(out_channels=2)
    assert count_parameters(network) == 105_276_066  # 105.276 M, measured on the released code


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (16, 16), (9, 33)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    network = build_network("transunet", {**SMALL, "image_size": [64, 64]}).eval()
    logits, auxiliaries = network(torch.randn(2, 1, *size), auxiliaries=True)
    assert logits.shape == (2, 3, *size)
    assert auxiliaries.token_stride == (16, 16)
    assert float(auxiliaries.transformer_macs[0]) > 0


def test_volumes_are_segmented_too() -> None:
    network = TransUnet(**{**SMALL, "spatial_dims": 3, "image_size": (32, 32, 32)}).eval()
    assert network(torch.randn(1, 1, 32, 20, 32)).shape == (1, 3, 32, 20, 32)


def test_standardised_filters_have_mean_0_and_variance_1() -> None:
    weight = standardised(torch.randn(5, 3, 3, 3) * 7 + 2)
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(weight.var((1, 2, 3), correction=0), torch.ones(5), atol=1e-3, rtol=0)


def test_every_parameter_learns() -> None:
    network = TransUnet(**{**SMALL, "image_size": (32, 32)}).train()
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_gates_prune_its_blocks() -> None:
    torch.manual_seed(0)
    network = TransUnet(**{**SMALL, "image_size": (64, 64)}).eval()
    image = torch.randn(2, 1, 64, 64)
    pruned = prune_attention(network, sample=image)
    pruned.gating = "off"
    with torch.no_grad():
        torch.testing.assert_close(pruned(image), network(image))
    assert len(pruned.costs) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 13}, "multiple of num_heads"),
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"units": [1, 2]}, "units"),
        ({"image_size": [4, 64]}, "image_size"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_network("transunet", {**SMALL, "image_size": [64, 64], **changes})
