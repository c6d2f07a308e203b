"""Small networks whose transformer blocks are searched, and masks that are far from even."""

from __future__ import annotations

from typing import Any

import torch
from apformer.networks import build_network
from apformer.pruning.joint_search import JointSearch
from apformer.pruning.search_ranking import Kept, cost
from prune_samples import EncoderSegmenter, a_unetr
from torch import nn

VIT: dict[str, Any] = {"hidden_size": 24, "mlp_dim": 48, "num_heads": 2}
SHAPE: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
SPARSE: dict[str, Any] = {**SHAPE, **VIT, "image_size": [64, 64], "num_layers": 4, "feature_size": 2}
SPARSE |= {"skip_after": [1, 2, 3], "prune_after": [2]}
# registered name -> arguments
ARGUMENTS: dict[str, dict[str, Any]] = {
    "apformer": {
        **SHAPE,
        "image_size": [64, 64],
        "channels": [4, 4, 8, 16],
        "depth": 3,
        "heads": 2,
        "head_dim": 8,
        "ffn_dim": 12,
    },
    "mobile_utr": {**SHAPE, "channels": [4, 4, 8, 16], "depths": [1, 1, 1, 1, 2], "heads": 2},
    "sparse_unetr": {**SPARSE, "prune_ratio": 0.0},
    "transunet": {
        **SHAPE,
        **VIT,
        "image_size": [64, 64],
        "width": 4,
        "units": [1, 1, 1],
        "num_layers": 3,
        "decoder_channels": [8, 4, 4, 4, 4],
    },
}
NAMES = (*ARGUMENTS, "MONAI UNETR", "torch encoder, post-norm", "torch encoder, batch second")


def a_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in ARGUMENTS:
        return build_network(name, ARGUMENTS[name]).eval()
    if name == "MONAI UNETR":
        return a_unetr(2, qkv_bias=True).eval()
    return EncoderSegmenter(batch_first="second" not in name).eval()


def images(name: str, count: int = 2, size: tuple[int, ...] | None = None) -> torch.Tensor:
    shape = size or ((64, 48) if name == "MONAI UNETR" else (64, 64))
    return torch.randn(count, 1, *shape, generator=torch.Generator().manual_seed(1))


def a_search(name: str, **options: Any) -> JointSearch:
    """With masks between -1 and 1, as a training may leave them, and a pixel module that changes something."""
    search = JointSearch(a_network(name), sample=images(name), **{"pixel_channels": 2, **options})
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for block in search.blocks:
            block.dim_mask.uniform_(-1, 1, generator=generator)
            block.hidden_mask.uniform_(-1, 1, generator=generator)
            if block.patch_mask is not None:
                block.patch_mask.uniform_(-0.5, 2, generator=generator)
        for parameter in search.pixels.parameters() if search.pixels is not None else ():
            parameter.normal_(0, 0.3, generator=generator)
    return search


def reachable(search: JointSearch, part: float) -> tuple[float, float]:
    """Shares (parameters, multiply-accumulates) that lie `part` of the way from all to the least that can be left."""
    least = []
    for block in search.blocks:
        one = [torch.arange(mask.numel()).reshape(mask.shape) == 0 for mask in (block.dim_mask, block.hidden_mask)]
        patches = None
        if block.patch_mask is not None:
            patches = torch.arange(block.patch_mask.numel()).reshape(block.patch_mask.shape) == 0
        least.append(Kept(*one, patches))
    spent = cost(search.blocks, least, search.whole)
    whole = (search.whole.parameters, search.whole.macs)
    return tuple(1 - part * (1 - left / all_) for left, all_ in zip(spent, whole, strict=True))


def _stronger(mask: torch.Tensor) -> torch.Tensor:
    strength = mask.detach().abs()
    return strength >= strength.median()


def decide_half(search: JointSearch) -> list[Kept]:
    """About half of the dimensions and channels, and fewer patches from block to block, whatever that costs."""
    kept = []
    for number, block in enumerate(search.blocks, 1):
        patches = None
        if block.patch_mask is not None:
            patches = torch.arange(block.patch_mask.numel()).reshape(block.patch_mask.shape) >= 2 * number
        stays = Kept(_stronger(block.dim_mask), _stronger(block.hidden_mask), patches)
        block.decide(*stays)
        kept.append(stays)
    return kept
