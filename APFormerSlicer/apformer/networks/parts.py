"""Small parts that networks share: checked settings, padding to whole cells, stochastic depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def checked_numbers(name: str, numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """A network's widths or depths, one per level.

    Raises:
        ValueError: they are not `count` numbers from 1 to 4096.
    """
    found = tuple(int(number) for number in numbers)
    if len(found) != count or not all(1 <= number <= 4096 for number in found):
        raise ValueError(f"{name} must be {count} numbers from 1 to 4096, not {numbers!r}")
    return found


def pad_to_cells(image: Tensor, cell: Sequence[int]) -> Tensor:
    """Repeat the far edges of (B, C, *size) until every axis holds whole cells, and at least two cells in all.

    Two, because a norm has no statistics for a single value: torch refuses instance norm on a map of one cell, and
    batch norm on one image of one cell in training.
    """
    missing = [-size % step for size, step in zip(image.shape[2:], cell, strict=True)]
    if all(size + extra == step for size, extra, step in zip(image.shape[2:], missing, cell, strict=True)):
        missing[-1] += cell[-1]
    if not any(missing):
        return image
    padding = [number for extra in reversed(missing) for number in (0, extra)]
    return F.pad(image, padding, mode="replicate")


def crop_to(features: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of (B, C, *larger) along every axis."""
    for axis, length in enumerate(size, start=2):
        features = features.narrow(axis, 0, length)
    return features


def drop_path(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: in training, the branch (B, ...) of a residual sum is left out with probability `rate`.

    One draw per image; what stays is scaled so that the mean is the branch.
    """
    if rate == 0 or not training:
        return branch
    kept = torch.empty(branch.shape[0], *[1] * (branch.ndim - 1), dtype=branch.dtype, device=branch.device)
    return branch * kept.bernoulli_(1 - rate) / (1 - rate)
