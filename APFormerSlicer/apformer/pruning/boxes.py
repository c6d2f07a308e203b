"""Boxes around the cells that are kept, so that a decoder computes what the organ needs and not what the image is.

Cells are those of the token grid. Every image has its own box, or none; images whose boxes have one size are computed
together, so that what an image gets does not depend on the others of its batch. Outside the boxes is background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EXTENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # cells along an axis
BACKGROUND_LOGIT = 4.0  # of the background outside, and minus that of all else: a foreground probability of 0.0003


class Boxes(NamedTuple):
    """Boxes of one size, in cells.

    images: numbers of the images in the batch. starts: of each image's box, one number per axis. extent: of all.
    """

    images: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    extent: tuple[int, ...]


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
        starts = [min(start, n - length) for start, n, length in zip(starts, grid, extent, strict=True)]
        found.setdefault(tuple(extent), []).append((image, tuple(starts)))
    return [
        Boxes(tuple(image for image, _ in members), tuple(starts for _, starts in members), extent)
        for extent, members in found.items()
    ]


def _rounded(length: int, most: int) -> int:
    return min(most, next((extent for extent in EXTENTS if extent >= length), most))


def cut(images: Sequence[Tensor], boxes: Boxes, cell: Sequence[int]) -> Tensor:
    """What lies in the boxes: (len(boxes.images), C, *extent * cell).

    Args:
        images: the maps (1, C, *size) of a batch, from one `split(1)` for all boxes: backward, every narrowing of a
            whole batch would cost a batch of zeros.
        cell: voxels of a map per cell along each axis.
    """
    pairs = zip(boxes.images, boxes.starts, strict=True)
    return torch.cat([_narrowed(images[image], starts, boxes.extent, cell) for image, starts in pairs])


def covers(boxes: Sequence[Boxes], kept: Tensor) -> bool:
    """Whether there is nothing to cut: every image's box is the whole image, (B, *grid)."""
    return len(boxes) == 1 and boxes[0].extent == tuple(kept.shape[1:]) and len(boxes[0].images) == kept.shape[0]


def paste(parts: Sequence[tuple[Boxes, Tensor]], like: Tensor, classes: int, cell: Sequence[int]) -> Tensor:
    """Logits of the boxes on the whole images, background elsewhere.

    Args:
        parts: boxes and their logits (len(boxes.images), classes, *extent * cell).
        like: of the wanted batch and size, (B, any, *size); says device and, without parts, precision.
        cell: voxels of the logits per cell along each axis.

    Returns: (B, classes, *size).
    """
    first = parts[0][1] if parts else like
    outside = first.new_full((1, classes, *like.shape[2:]), -BACKGROUND_LOGIT)
    outside[:, 0] = BACKGROUND_LOGIT
    whole = [outside] * like.shape[0]
    for boxes, logits in parts:
        for image, starts, one in zip(boxes.images, boxes.starts, logits.split(1), strict=True):
            around = outside.clone()
            _narrowed(around, starts, boxes.extent, cell).zero_()
            whole[image] = around + F.pad(one, _padding(starts, cell, one.shape[2:], like.shape[2:]))
    return torch.cat(whole)


def _narrowed(image: Tensor, starts: Sequence[int], extent: Sequence[int], cell: Sequence[int]) -> Tensor:
    """What lies in a box, (1, C, *extent * cell), as a view."""
    for axis, (start, cells, step) in enumerate(zip(starts, extent, cell, strict=True), start=2):
        image = image.narrow(axis, start * step, cells * step)
    return image


def _padding(starts: Sequence[int], cell: Sequence[int], inner: Sequence[int], size: Sequence[int]) -> list[int]:
    """What `pad` adds before and after, from the last axis."""
    padding: list[int] = []
    for start, step, length, whole in reversed(list(zip(starts, cell, inner, size, strict=True))):
        padding += [start * step, whole - start * step - length]
    return padding
