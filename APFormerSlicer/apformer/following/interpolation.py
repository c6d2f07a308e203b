"""Outlines between two outlines, from their shapes alone: what is proposed where the image teaches nothing more.

Shape-based interpolation (Raya and Udupa, "Shape-based interpolation of multidimensional objects", IEEE TMI 9, 1990):
the signed distances to both outlines are mixed. Two things are added. Holes are shapes of their own, so that the wall
of a ring that grows narrower stays closed. And where moving one outline onto the other lets them overlap more, they are
mixed at a common place on the way, so that a round structure that moves sideways does not shrink on its way.

Distances are in pixels, negative inside, 0 halfway between the last pixel inside and the first one outside.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import SimpleITK as sitk

FAR = 30.0  # px: of a pixel from an outline that is not there


class Outline:
    """One structure on one slice.

    Args:
        mask: bool (rows, columns), may be empty.
        spacing: of rows and columns, in any unit; distances are in the same one.
    """

    def __init__(self, mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> None:
        self.mask, self.spacing = mask, spacing

    @cached_property
    def drawn(self) -> bool:
        return bool(self.mask.any())

    @cached_property
    def distance(self) -> np.ndarray:
        """float32 (rows, columns), signed; `FAR` everywhere for an empty outline."""
        if not self.drawn:
            return np.full(self.mask.shape, FAR, np.float32)
        image = sitk.GetImageFromArray(self.mask.astype(np.uint8))
        image.SetSpacing(self.spacing[::-1])
        # The filter is 0 on the outermost pixels inside.
        distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
        return sitk.GetArrayFromImage(distance).astype(np.float32) - 0.5 * min(self.spacing)

    @cached_property
    def centre(self) -> np.ndarray:
        """Of gravity, (row, column) in pixels."""
        return np.argwhere(self.mask).mean(axis=0)

    @cached_property
    def filled(self) -> Outline:
        """The same without holes."""
        image = sitk.BinaryFillhole(sitk.GetImageFromArray(self.mask.astype(np.uint8)))
        return Outline(sitk.GetArrayFromImage(image) > 0, self.spacing)

    @cached_property
    def holes(self) -> Outline:
        return Outline(self.filled.mask & ~self.mask, self.spacing)


def interpolated(first: Outline, second: Outline, share: float) -> np.ndarray:
    """The signed distance of the outline between two: float32 (rows, columns).

    Args:
        share: of the way from the first to the second, 0 to 1. Towards an empty outline a structure shrinks and
            is gone when it arrives.
    """
    body = _mixed(first.filled, second.filled, share)
    if not (first.holes.drawn or second.holes.drawn):
        return body
    return np.maximum(body, -_mixed(first.holes, second.holes, share))


def _mixed(first: Outline, second: Outline, share: float) -> np.ndarray:
    if not first.drawn and not second.drawn:
        return first.distance
    here, there = _towards(first, second), _towards(second, first)
    if first.drawn and second.drawn:
        by = _movement(first, second)
        if by is not None:
            here, there = _moved(here, by * share), _moved(there, -by * (1 - share))
    return here * np.float32(1 - share) + there * np.float32(share)


def _towards(outline: Outline, other: Outline) -> np.ndarray:
    """Its distances; of an empty one those of the other, so much farther out that its deepest point is just not in."""
    return outline.distance if outline.drawn else other.distance - other.distance.min()


def _movement(first: Outline, second: Outline) -> np.ndarray | None:
    """From one centre to the other, (rows, columns) in pixels; None if the outlines then overlap no more than before.

    A jaw whose arch moves forward is such a case: moved as a whole, it would miss itself.
    """
    by = second.centre - first.centre
    rows, columns = np.rint(by).astype(int)
    if not (rows or columns):
        return by
    moved = np.roll(first.mask, (rows, columns), (0, 1))
    return by if (moved & second.mask).sum() >= (first.mask & second.mask).sum() else None


def _moved(distance: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Moved by a fraction of pixels; what comes in from outside is as its nearest pixel."""
    rows, columns = (float(step) for step in by)
    return sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.GetImageFromArray(distance),
            sitk.TranslationTransform(2, [-columns, -rows]),
            sitk.sitkLinear,
            FAR,
            sitk.sitkFloat32,
            True,  # the nearest pixel for what lies outside
        )
    )
