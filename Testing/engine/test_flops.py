"""Counting multiply-accumulates: against hand counts on small layers, and against the published network's cost."""

from __future__ import annotations

import pytest
import torch
from apformer.networks import build_network
from apformer.pruning import Macs, count_macs, count_parameters
from torch import Tensor, nn
from torch.nn import functional as F


class SelfProduct(nn.Module):
    """Tokens (B, N, width) -> linear layer -> attention of the tokens among themselves."""

    def __init__(self, width: int, fused: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        self.fused = fused

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.linear(tokens)
        if self.fused:
            return F.scaled_dot_product_attention(tokens, tokens, tokens)
        return torch.einsum("bnm,bmc->bnc", (tokens @ tokens.transpose(1, 2)).softmax(-1), tokens)


def tiny(dims: int = 2, **arguments: object) -> nn.Module:
    size = (16, 24) if dims == 2 else (8, 16, 16)
    return build_network(
        "apformer",
        {"spatial_dims": dims, "image_size": size, "channels": (2, 3, 4, 5), "heads": 2, "head_dim": 3, "ffn_dim": 7}
        | {"depth": 2, "out_channels": 2}
        | arguments,
    )


def test_a_convolution_costs_its_kernel_times_its_output():
    convolution = nn.Conv2d(3, 4, kernel_size=3, padding=1)
    assert count_macs(convolution, (2, 3, 5, 6)) == Macs(total=2 * 4 * 5 * 6 * 3 * 3 * 3, attention=0)


def test_a_3d_convolution_is_counted_too():
    convolution = nn.Conv3d(1, 2, kernel_size=2, stride=2)
    assert count_macs(convolution, (1, 1, 4, 4, 4)).total == 2 * 2**3 * 2**3


@pytest.mark.parametrize("fused", [True, False], ids=["fused kernel", "written out"])
def test_products_between_tokens_are_attention_and_products_with_weights_are_not(fused: bool):
    batch, count, width = 2, 5, 8
    macs = count_macs(SelfProduct(width, fused), (batch, count, width))
    assert macs.attention == 2 * batch * count * count * width
    assert macs.without_attention == batch * count * width * width


def test_a_weight_applied_to_transposed_tokens_is_a_layer_not_attention():
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 7))

        def forward(self, features: Tensor) -> Tensor:
            return torch.matmul(features.transpose(1, 2), self.weight)  # a non-contiguous batch: bmm with the weight

    assert count_macs(Transposed(), (2, 3, 5)) == Macs(total=2 * 5 * 3 * 7, attention=0)


def test_the_published_network_costs_what_was_measured_on_the_released_code():
    network = build_network("apformer", {})  # 256 x 256, 1 channel, 9 classes
    macs = count_macs(network, (1, 1, 256, 256))
    # 10.70 G with 0.025 G for the dependency thresholds; a counter that sees layers only gave 4.26 G.
    assert macs.total / 1e9 == pytest.approx(10.70, rel=0.005)
    assert macs.attention == 4 * 2 * 1024 * 1024 * 768  # layers, products, tokens squared, inner width
    assert 4.22 < macs.without_attention / 1e9 < 4.27


def test_a_3d_network_counts_its_attention_from_the_token_grid():
    tokens = 1 * 2 * 2
    macs = count_macs(tiny(3), (1, 1, 8, 16, 16))
    assert macs.attention == 2 * 2 * tokens * tokens * 6
    assert macs.without_attention > 8 * 16 * 16 * 27 * (1 * 2 + 2 * 2)  # at least the first level


def test_counting_leaves_mode_statistics_and_cached_bias_alone():
    network = tiny()
    with torch.no_grad():
        network.eval()(torch.rand(1, 1, 16, 24))
    network.train()
    position = network.layers[0].attention.position
    cached, before = position._bias, {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network, (1, 1, 40, 40))
    assert network.training
    assert position._bias is cached
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_parameters_are_counted_without_the_frozen_ones():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    network[0].weight.requires_grad_(False)
    assert count_parameters(network) == 3 + 3 + 1


def test_torchs_fused_encoder_layer_is_counted_too_and_stays_switched_on() -> None:
    encoder = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.encoder(image.flatten(2).transpose(1, 2))

    tokens = 6
    linear = tokens * (4 * 8 * 8 + 2 * 8 * 16)
    assert count_macs(Rows(), (1, 8, 2, 3)) == (linear + 2 * tokens * tokens * 8, 2 * tokens * tokens * 8)
    assert torch.backends.mha.get_fastpath_enabled()
