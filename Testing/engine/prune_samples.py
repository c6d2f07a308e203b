"""Small networks of other libraries with transformer blocks, and what the tests of pruning them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from apformer.pruning.auxiliaries import Auxiliaries
from apformer.pruning.plugin import PrunedNetwork, prune_attention
from monai.networks.nets import UNETR, ViT
from torch import Tensor, nn


class EncoderSegmenter(nn.Module):
    """Patches of 4 x 4 pixels -> torch's TransformerEncoder -> logits; any image size, no positions."""

    def __init__(self, layers: int = 3, **options: Any) -> None:
        super().__init__()
        self.batch_first = options.setdefault("batch_first", True)
        options.setdefault("dropout", 0.0)
        self.stem = nn.Conv2d(1, 16, kernel_size=4, stride=4)
        layer = nn.TransformerEncoderLayer(16, options.pop("heads", 2), 24, **options)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(16), enable_nested_tensor=False)
        self.head = nn.ConvTranspose2d(16, 2, kernel_size=4, stride=4)

    def forward(self, image: Tensor, padding: Tensor | None = None) -> Tensor:
        features = self.stem(image)
        tokens = features.flatten(2).permute(*((0, 2, 1) if self.batch_first else (2, 0, 1)))
        tokens = self.encoder(tokens, src_key_padding_mask=padding)
        back = tokens.permute(*((0, 2, 1) if self.batch_first else (1, 2, 0)))
        return self.head(back.reshape(features.shape))


def a_unetr(dims: int, **options: Any) -> UNETR:
    size = (64, 48) if dims == 2 else (32, 48, 32)
    widths = {"feature_size": 2, "hidden_size": 12, "mlp_dim": 16, "num_heads": 3}
    return UNETR(1, 2, size, spatial_dims=dims, **widths, **options)


def a_vit(dims: int = 2, **options: Any) -> ViT:
    size = (24, 16) if dims == 2 else (8, 16, 12)
    return ViT(1, size, 4, 12, 16, 3, 3, spatial_dims=dims, **options)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "UNETR 2D": lambda: a_unetr(2),
    "UNETR 3D": lambda: a_unetr(3, qkv_bias=True),
    "ViT": lambda: a_vit(),
    "ViT 3D, perceptron": lambda: a_vit(3, proj_type="perceptron", qkv_bias=True),
    "ViT, cls token": lambda: a_vit(classification=True),
    "ViT 3D, cls token, perceptron": lambda: a_vit(3, classification=True, proj_type="perceptron"),
    "encoder, post-norm": lambda: EncoderSegmenter(),
    "encoder, pre-norm, gelu": lambda: EncoderSegmenter(norm_first=True, activation="gelu"),
    "encoder, post-norm, gelu, batch second": lambda: EncoderSegmenter(batch_first=False, activation="gelu"),
    "encoder, pre-norm, batch second, no bias": lambda: EncoderSegmenter(
        batch_first=False, norm_first=True, bias=False
    ),
}


def a_network(name: str) -> nn.Module:
    """In evaluation mode, with attention far from even, so that dependencies really drop, and biases that matter."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for path, parameter in network.named_parameters():
            if any(part in path for part in ("qkv", "in_proj_weight")):
                parameter.normal_(0, 0.7)
            elif path.endswith("bias") and ("blocks" in path or "encoder.layers" in path):
                parameter.normal_(0, 0.3)
    return network


def an_image(name: str, batch: int = 4) -> Tensor:
    sizes = {"UNETR 2D": (64, 48), "UNETR 3D": (32, 48, 32)}
    size = sizes.get(name, (8, 16, 12) if "3D" in name else (24, 16))
    return torch.randn(batch, 1, *size, generator=torch.Generator().manual_seed(1))


class KeepThese(nn.Module):
    """A query gate whose decision is given."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, prune_logits: Tensor) -> Tensor:
        assert prune_logits[:, 0].shape == self.kept.shape
        return self.kept


def pruned_at(name: str, shares: list[float], prune_keys: bool = True) -> tuple[PrunedNetwork, Tensor]:
    """The network with this share of the tokens kept in each image of the batch, and the batch."""
    image = an_image(name, len(shares))
    pruned = prune_attention(a_network(name), sample=image, prune_keys=prune_keys)
    grid = with_auxiliaries(pruned, image, "off")[1].kept.shape[1:]
    draws = torch.rand(len(shares), *grid, generator=torch.Generator().manual_seed(2))
    kept = draws <= torch.tensor(shares).reshape(-1, *[1] * len(grid))
    pruned.query_gate = KeepThese(kept.float())
    for gate in pruned.dependency:
        nn.init.constant_(gate.gate, 1.0)
    return pruned, image


def with_auxiliaries(pruned: PrunedNetwork, image: Tensor, gating: str) -> tuple[Any, Auxiliaries]:
    pruned.gating = gating
    with torch.no_grad():
        return pruned(image, auxiliaries=True)


def tensors_in(output: Any) -> list[Tensor]:
    """ViT gives (tokens, hidden states of every block)."""
    return [output] if isinstance(output, Tensor) else [output[0], *output[1]]


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(tensors_in(found), tensors_in(expected), rtol=tolerance, atol=tolerance)


def assert_same(found: Any, expected: Any) -> None:
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(found), tensors_in(expected), strict=True))


def with_some_pruned(pruned: PrunedNetwork, image: Tensor) -> None:
    """Set the query gate's threshold in the middle of what the prune head says."""
    logits = with_auxiliaries(pruned, image, "off")[1].prune_logits
    nn.init.constant_(pruned.query_gate.threshold, float((logits[:, 1] - logits[:, 0]).median()))
