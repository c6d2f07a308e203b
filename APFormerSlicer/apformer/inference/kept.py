"""The kept-token map: where the network looked, from the token grid to the stored voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def expand_tokens(kept: Tensor, token_stride: Sequence[int], size: Sequence[int]) -> Tensor:
    """Kept tokens (B, *grid) -> (B, *size), every voxel with the value of its token's cell.

    The first cell starts at the first voxel; cells that reach beyond `size` (the network pads there) are cut.
    """
    for axis, (stride, n) in enumerate(zip(token_stride, size, strict=True), start=1):
        kept = kept.repeat_interleave(stride, axis).narrow(axis, 0, n)
    return kept


def resize_nearest(looked: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 (B, *spatial) -> (B, *size); each voxel takes the one its centre lies in, as logits are resized."""
    if tuple(looked.shape[1:]) == tuple(size):
        return looked
    return F.interpolate(looked[:, None], size=tuple(size), mode="nearest-exact")[:, 0]


def everywhere(batch: int, size: Sequence[int]) -> Tensor:
    """The map of a network that prunes nothing: uint8 ones (B, *size)."""
    return torch.ones((batch, *size), dtype=torch.uint8)
