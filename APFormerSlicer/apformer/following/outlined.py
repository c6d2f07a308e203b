"""A structure that was outlined on some slices, on the grid where it is learned: cut out, square pixels, a common size.

Structures of all sizes and images of all kinds then look alike to one small network: some `SIZE` pixels across, grey
values counted from those of the structure in units of what surrounds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from .edge_network import REACH, Channel
from .interpolation import Outline, interpolated

SIZE = 56.0  # px: the side of a square as large as the largest outline
FINEST, COARSEST = 2.5, 2.0  # how much finer than the image's smaller edges, or coarser than its larger ones
MARGIN, MARGIN_PX = 0.25, 10.0  # around all outlines: of their extent, and at least
LONGEST = 160.0  # px of the cut: long thin structures cost no more than this
SMALLEST = 8  # px of the cut
SURROUNDINGS = 8.0  # px around an outline: what grey values are compared with
BINS, GREY_RANGE, SMOOTHING = 24, 4.0, 2.0  # of the histogram; grey values from minus to plus; px
MOST_LIKE, FAINTEST = 3.0, 1e-4  # of the logarithm of a ratio, and what is added to both of its parts
BRIGHTEST = 5.0


class Outlined:
    """One structure on its grid, (slices, rows, columns).

    Args:
        image: (slices, rows, columns), of one channel.
        outlines: slice -> bool (rows, columns); two slices at least, one of them not empty.
        spacing: of rows and columns, mm.
        size: see `SIZE`.
    """

    def __init__(
        self,
        image: np.ndarray,
        outlines: Mapping[int, np.ndarray],
        spacing: tuple[float, float],
        size: float = SIZE,
    ) -> None:
        self.slices = sorted(outlines)
        self.pixel = _pixel(outlines, spacing, size)
        self.box = _box(np.any([outlines[index] for index in self.slices], axis=0), spacing, self.pixel)
        rows, columns = ((side.stop - side.start) * edge for side, edge in zip(self.box, spacing, strict=True))
        self.pixel = max(self.pixel, max(rows, columns) / LONGEST)
        self.shape = max(SMALLEST, round(rows / self.pixel)), max(SMALLEST, round(columns / self.pixel))
        self.share = {index: self._resampled(outlines[index][self.box])[0] for index in self.slices}
        self.outline = {index: Outline(inside > 0.5) for index, inside in self.share.items()}
        self._first = max(0, self.slices[0] - 1)
        self._grey = self._standardised(image[self._first : self.slices[-1] + 2, self.box[0], self.box[1]])
        self._ratios: dict[int | None, np.ndarray] = {}

    @property
    def drawn(self) -> list[int]:
        """Slices with an outline that is not empty on this grid."""
        return [index for index in self.slices if self.outline[index].drawn]

    def neighbours(self, index: int, among: Sequence[int] | None = None) -> tuple[int, int]:
        """The outlined slices before and after; twice the same where there is none on one side."""
        before = [other for other in among or self.slices if other < index]
        after = [other for other in among or self.slices if other > index]
        return (before or after[:1])[-1], (after or before[-1:])[0]

    def prior(self, index: int, first: int, second: int) -> np.ndarray:
        """Signed distance, px, float32 (rows, columns) of a slice, from the outlines of two others."""
        if first == second:
            return self.outline[first].distance
        return interpolated(self.outline[first], self.outline[second], (index - first) / (second - first))

    def channels(
        self, index: int, prior: np.ndarray, first: int, second: int, without: int | None = None
    ) -> np.ndarray:
        """What the network sees of a slice, float32 (`Channel`, rows, columns).

        Args:
            prior: its signed distance, as interpolated. first, second: outlined slices on both sides.
            without: an outlined slice that the structure's grey values are not taken from, as when it is asked for.
        """
        share = 0.5 if first == second else (index - first) / (second - first)
        seen = {
            Channel.IMAGE: self.grey(index),
            Channel.IMAGE_BEFORE: self.grey(index - 1),
            Channel.IMAGE_AFTER: self.grey(index + 1),
            Channel.PRIOR: _clipped(prior),
            Channel.LIKENESS: self.like(index, without),
            Channel.FIRST_IMAGE: self.grey(first),
            Channel.FIRST_OUTLINE: _clipped(self.outline[first].distance),
            Channel.SECOND_IMAGE: self.grey(second),
            Channel.SECOND_OUTLINE: _clipped(self.outline[second].distance),
            Channel.SHARE: np.full(self.shape, share),
        }
        return np.stack([seen[channel] for channel in Channel]).astype(np.float32)

    def grey(self, index: int) -> np.ndarray:
        """A slice, the nearest one of those that were cut out."""
        return self._grey[min(max(index - self._first, 0), len(self._grey) - 1)]

    def like(self, index: int, without: int | None = None) -> np.ndarray:
        """How much a slice's grey values, and those around them, are the structure's: logarithm of a ratio."""
        if without not in self._ratios:
            self._ratios[without] = self._ratio(without)
        here, around = self._bins(index)
        return self._ratios[without][here, around]

    def restored(self, values: np.ndarray) -> np.ndarray:
        """(n, rows, columns) of this grid on the pixels of the image in `box`."""
        rows, columns = (side.stop - side.start for side in self.box)
        return _resized(values, (rows, columns))

    # ------------------------------------------------------------------ grey values

    def _standardised(self, image: np.ndarray) -> np.ndarray:
        """0 is the structure's median, 3 apart are the 5th and 95th percentile of it and its surroundings."""
        grey = self._resampled(image)
        inside, near = [], []
        for index in self.drawn:
            values, distance = grey[index - self._first], self.outline[index].distance
            inside.append(values[distance < 0])
            near.append(values[distance < SURROUNDINGS])
        if not inside:
            return np.zeros_like(grey)
        low, high = np.percentile(np.concatenate(near), [5, 95])
        unit = max(float(high - low) / 3, 1e-6 * max(1.0, abs(float(high))))
        return np.clip((grey - np.median(np.concatenate(inside))) / unit, -BRIGHTEST, BRIGHTEST)

    @cached_property
    def _around(self) -> np.ndarray:
        return _smoothed(self._grey, SMOOTHING)

    def _bins(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number = min(max(index - self._first, 0), len(self._grey) - 1)
        here, around = (
            np.clip((values[number] + GREY_RANGE) / (2 * GREY_RANGE) * BINS, 0, BINS - 1).astype(int)
            for values in (self._grey, self._around)
        )
        return here, around

    def _ratio(self, without: int | None) -> np.ndarray:
        """(grey value, grey value around it): logarithm of the structure's share to its surroundings' share."""
        counts = np.zeros((2, BINS, BINS))
        for index in [index for index in self.drawn if index != without] or self.drawn:
            here, around = self._bins(index)
            distance = self.outline[index].distance
            for number, chosen in enumerate((distance < 0, (distance > 0) & (distance < SURROUNDINGS))):
                np.add.at(counts[number], (here[chosen], around[chosen]), 1)
        shares = _smoothed(counts / counts.sum(axis=(1, 2), keepdims=True).clip(1), 1.0) + FAINTEST
        return np.clip(np.log(shares[0] / shares[1]), -MOST_LIKE, MOST_LIKE)

    def _resampled(self, slices: np.ndarray) -> np.ndarray:
        return _resized(slices if slices.ndim == 3 else slices[None], self.shape)


def _pixel(outlines: Mapping[int, np.ndarray], spacing: tuple[float, float], size: float) -> float:
    """mm"""
    area = max(int(Outline(mask).filled.mask.sum()) for mask in outlines.values()) * spacing[0] * spacing[1]
    return float(np.clip(np.sqrt(area) / size, min(spacing) / FINEST, max(spacing) * COARSEST))


def _box(mask: np.ndarray, spacing: tuple[float, float], pixel: float) -> tuple[slice, slice]:
    """Rows and columns of a mask with the margin around, inside the image."""
    sides = []
    for axis, edge in enumerate(spacing):
        found = np.flatnonzero(mask.any(axis=1 - axis))
        start, stop = int(found[0]), int(found[-1]) + 1
        margin = max(MARGIN * (stop - start), MARGIN_PX * pixel / edge)
        sides.append(slice(max(0, int(start - margin)), min(mask.shape[axis], int(np.ceil(stop + margin)))))
    return sides[0], sides[1]


def _clipped(distance: np.ndarray) -> np.ndarray:
    return np.clip(distance / REACH, -1, 1)


def _resized(slices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 (n, *shape), by linear interpolation, or means where it becomes coarser."""
    values = torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32))[:, None]
    if values.shape[2:] == shape:
        return values[:, 0].numpy()
    coarser = shape[0] < values.shape[2] or shape[1] < values.shape[3]
    return F.interpolate(values, shape, mode="bilinear", antialias=coarser)[:, 0].numpy()


def _smoothed(slices: np.ndarray, sigma: float) -> np.ndarray:
    """(n, rows, columns), each by a Gaussian, edges repeated."""
    reach = round(4 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = (line / line.sum()).to(torch.float32)
    values = torch.from_numpy(np.ascontiguousarray(slices, dtype=np.float32))[:, None]
    values = F.conv2d(F.pad(values, [0, 0, reach, reach], mode="replicate"), line[None, None, :, None])
    values = F.conv2d(F.pad(values, [reach, reach, 0, 0], mode="replicate"), line[None, None, None, :])
    return values[:, 0].numpy()
