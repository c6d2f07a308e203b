"""Convolutions through oneDNN: the same numbers, the same state, and torch's own where oneDNN does not apply."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from apformer.inference.backend import OneDnnConv3d, accelerate
from apformer.networks.apformer import APFormer
from torch import nn

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "image_size": (16, 24, 16),
    "channels": (4, 8, 8, 16),
    "depth": 1,
    "heads": 2,
    "head_dim": 4,
    "ffn_dim": 8,
}


@pytest.fixture
def a_network() -> APFormer:
    torch.manual_seed(0)
    return APFormer(**ARGUMENTS).eval()


@needs_onednn
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("batch", [1, 2])
def test_an_accelerated_network_gives_the_same_logits(a_network: APFormer, layout: torch.memory_format, batch: int):
    image = torch.rand(batch, 1, 16, 24, 16, generator=torch.Generator().manual_seed(1))
    fast = accelerate(copy.deepcopy(a_network)).to(memory_format=layout)
    with torch.inference_mode():
        expected, got = a_network(image), fast(image)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    # Dice of 1 but for ties that rounding may decide either way
    assert (got.argmax(1) == expected.argmax(1)).float().mean() >= 0.999


@needs_onednn
def test_every_3d_convolution_is_replaced_and_the_state_stays(a_network: APFormer):
    before = {name: tensor.data_ptr() for name, tensor in a_network.state_dict().items()}
    accelerate(a_network)
    assert not [module for module in a_network.modules() if type(module) is nn.Conv3d]
    assert {name: tensor.data_ptr() for name, tensor in a_network.state_dict().items()} == before


@needs_onednn
@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2, "padding": 1},
        {"padding": (1, 0, 2), "bias": False},
        {"groups": 2, "padding": 1},
        {"dilation": 2, "padding": 2},
    ],
    ids=str,
)
def test_a_replaced_convolution_has_the_settings_of_the_first(settings: dict[str, Any]):
    torch.manual_seed(0)
    conv = nn.Conv3d(4, 6, 3, **settings)
    image = torch.rand(1, 4, 5, 6, 7)
    with torch.inference_mode():
        torch.testing.assert_close(OneDnnConv3d.replacing(conv)(image), conv(image), atol=1e-5, rtol=1e-4)


def test_with_gradients_torchs_own_convolution_runs(a_network: APFormer, monkeypatch: pytest.MonkeyPatch):
    network = accelerate(a_network)

    def refuse(*arguments: object) -> None:
        raise AssertionError("oneDNN was called")

    monkeypatch.setattr(torch, "mkldnn_convolution", refuse)
    network(torch.rand(1, 1, 16, 24, 16)).sum().backward()
    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, OneDnnConv3d)}
    reached = [module for name, module in convolutions.items() if name != "prune_head"]  # its logits are not the output
    assert all(module.weight.grad is not None for module in reached)
    assert bool(reached) == torch.backends.mkldnn.is_available()


@needs_onednn
def test_without_gradients_onednn_runs(monkeypatch: pytest.MonkeyPatch):
    conv = accelerate(nn.Sequential(nn.Conv3d(1, 1, 3)))

    def answer(*arguments: object) -> torch.Tensor:
        return torch.full((1, 1, 1, 1, 1), 7.0)

    monkeypatch.setattr(torch, "mkldnn_convolution", answer)
    with torch.inference_mode():
        assert conv(torch.rand(1, 1, 3, 3, 3)).item() == 7.0


def test_what_onednn_is_not_meant_for_stays_as_it_is():
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv3d(1, 1, 3, padding=1, padding_mode="replicate"))
    assert [type(module) for module in accelerate(network)] == [nn.Conv2d, nn.Conv3d]


def test_without_onednn_nothing_changes(a_network: APFormer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not [module for module in accelerate(a_network).modules() if isinstance(module, OneDnnConv3d)]
