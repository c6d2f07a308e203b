"""Boxes around the cells that are kept, so that a decoder computes what the organ needs and not what the image is.

Cells are those of the token grid. Every image has its own box, or none; images whose boxes have one size are computed
together. Outside the boxes is background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EXTENTS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)  # cells along an axis
BACKGROUND_LOGIT = 4.0  # of the background outside, and minus that of all else: a foreground probability of 0.0003
# What a group of boxes costs a training step beside its cells, in cells of 16 x 16 pixels: calls and gradients of
# weights take as long as some 110 cells (of 0.1 ms) of LeanFormer's way up on a Xeon with AMX, and convolutions are
# compiled for sizes that oneDNN has not seen lately. Of 64, 128, 256 and 512, steps on liver slices were shortest
# with 128.
GROUP_CELLS = 128


class Boxes(NamedTuple):
    """Boxes of one size, in cells.

    images: numbers of the images in the batch. starts: of each image's box, one number per axis. extent: of all.
    """

    images: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    extent: tuple[int, ...]

    @property
    def cells(self) -> int:
        """Of all boxes together."""
        return len(self.images) * math.prod(self.extent)


def boxes_around(kept: Tensor, halo: int = 0) -> list[Boxes]:
    """Boxes that hold what is kept, and `halo` cells around it where the image has them.

    Extents are rounded up to one of `EXTENTS`, so that a batch has few of them: what is computed together costs less
    than the cells it has too many. A box holds two cells at least: a norm has no statistics for a single value.

    Args:
        kept: (B, *grid), above 0 where a cell is kept; the grid has two cells at least.

    Returns: one entry per extent; images of which nothing is kept are in none.
    """
    found: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    grid = tuple(kept.shape[1:])
    for image, cells in enumerate((kept.detach() > 0).cpu()):
        places = cells.nonzero()
        if not len(places):
            continue
        starts = [max(0, first - halo) for first in places.amin(0).tolist()]
        stops = [min(n, last + 1 + halo) for n, last in zip(grid, places.amax(0).tolist(), strict=True)]
        extent = [_rounded(stop - start, n) for start, stop, n in zip(starts, stops, grid, strict=True)]
        if math.prod(extent) == 1:
            extent[grid.index(max(grid))] = 2
        found.setdefault(tuple(extent), []).append((image, _inside(starts, extent, grid)))
    return [
        Boxes(tuple(image for image, _ in members), tuple(starts for _, starts in members), extent)
        for extent, members in found.items()
    ]


def merged(groups: Sequence[Boxes], grid: Sequence[int]) -> list[Boxes]:
    """Fewer groups, of larger boxes, wherever that is cheaper. For training alone: what an image's box is, and so what
    its norms see, then depends on the others of its batch.

    Args:
        grid: cells of an image along each axis.
    """
    groups = list(groups)
    while len(groups) > 1:
        pairs = [(_joined(a, b, grid), a, b) for a, b in combinations(groups, 2)]
        both, one, other = min(pairs, key=lambda pair: pair[0].cells - pair[1].cells - pair[2].cells)
        if both.cells - one.cells - other.cells >= GROUP_CELLS:
            break
        groups = [boxes for boxes in groups if boxes is not one and boxes is not other] + [both]
    return groups


def _joined(one: Boxes, other: Boxes, grid: Sequence[int]) -> Boxes:
    extent = tuple(map(max, one.extent, other.extent))
    starts = tuple(_inside(start, extent, grid) for start in one.starts + other.starts)
    return Boxes(one.images + other.images, starts, extent)


def _inside(starts: Sequence[int], extent: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """Where a box of that extent begins so that it ends inside the image."""
    return tuple(min(start, n - length) for start, n, length in zip(starts, grid, extent, strict=True))


def _rounded(length: int, most: int) -> int:
    return min(most, next((extent for extent in EXTENTS if extent >= length), most))


def covers(boxes: Sequence[Boxes], kept: Tensor) -> bool:
    """Whether there is nothing to cut: every image's box is the whole image, (B, *grid)."""
    return len(boxes) == 1 and boxes[0].extent == tuple(kept.shape[1:]) and len(boxes[0].images) == kept.shape[0]


def cut(features: Tensor, groups: Sequence[Boxes], cell: Sequence[int]) -> list[Tensor]:
    """What lies in the boxes, per group (len(boxes.images), C, *extent * cell), channels last.

    Args:
        features: (B, C, *size).
        cell: voxels of the map per cell along each axis.
    """
    return list(_Cut.apply(features, tuple(groups), tuple(cell))) if groups else []


def paste(parts: Sequence[Tensor], groups: Sequence[Boxes], like: Tensor, classes: int, cell: Sequence[int]) -> Tensor:
    """Logits of the boxes on the whole images, background elsewhere.

    Args:
        parts: per group, logits (len(boxes.images), classes, *extent * cell).
        like: of the wanted batch and size, (B, any, *size); says device and, without parts, precision.
        cell: voxels of the logits per cell along each axis.

    Returns: (B, classes, *size).
    """
    shape = (like.shape[0], classes, *like.shape[2:])
    if not parts:
        return _background(like, shape)
    whole: Tensor = _Paste.apply(tuple(groups), tuple(cell), shape, *parts)
    return whole


class _Cut(torch.autograd.Function):
    """By hand, because autograd's own narrowing would make a whole batch of zeros for every box."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, groups: tuple[Boxes, ...], cell: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.groups, ctx.cell, ctx.shape = groups, cell, features.shape
        return tuple(_gathered(features, boxes, cell) for boxes in groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole = _channels_last(gradients[0], ctx.shape).zero_()
        for boxes, gradient in zip(ctx.groups, gradients, strict=True):
            _put(gradient, whole, boxes, ctx.cell)
        return whole, None, None


class _Paste(torch.autograd.Function):
    """The counterpart of `_Cut`, onto background."""

    @staticmethod
    def forward(
        ctx: Any, groups: tuple[Boxes, ...], cell: tuple[int, ...], shape: tuple[int, ...], *parts: Tensor
    ) -> Tensor:
        ctx.groups, ctx.cell = groups, cell
        whole = _background(parts[0], shape)
        for boxes, logits in zip(groups, parts, strict=True):
            _put(logits, whole, boxes, cell)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(_gathered(gradient, boxes, ctx.cell) for boxes in ctx.groups)


def _background(like: Tensor, shape: Sequence[int]) -> Tensor:
    whole = like.new_full(tuple(shape), -BACKGROUND_LOGIT)
    whole[:, 0] = BACKGROUND_LOGIT
    return whole


def _gathered(features: Tensor, boxes: Boxes, cell: Sequence[int]) -> Tensor:
    size = [cells * step for cells, step in zip(boxes.extent, cell, strict=True)]
    parts = _channels_last(features, (len(boxes.images), features.shape[1], *size))
    for part, image, starts in zip(parts, boxes.images, boxes.starts, strict=True):
        part.copy_(_narrowed(features[image], starts, boxes.extent, cell))
    return parts


def _put(parts: Tensor, whole: Tensor, boxes: Boxes, cell: Sequence[int]) -> None:
    for part, image, starts in zip(parts, boxes.images, boxes.starts, strict=True):
        _narrowed(whole[image], starts, boxes.extent, cell).copy_(part)


def _channels_last(like: Tensor, shape: Sequence[int]) -> Tensor:
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def _narrowed(image: Tensor, starts: Sequence[int], extent: Sequence[int], cell: Sequence[int]) -> Tensor:
    """What lies in a box of an image (C, *size), as a view."""
    for axis, (start, cells, step) in enumerate(zip(starts, extent, cell, strict=True), start=1):
        image = image.narrow(axis, start * step, cells * step)
    return image
