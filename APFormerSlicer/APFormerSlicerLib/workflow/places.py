"""Where to look first: connected regions in which the network was unsure, by how much uncertainty they hold.

A thin line of uncertainty runs around everything that is segmented. Smoothing makes it faint, so that what remains is
where the network was unsure over more than a border.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Uncertainty (0 to 1) after smoothing from which a region counts; a region that is too large is divided by the next.
LEVELS = (0.25, 0.4, 0.55, 0.7, 0.85)
LARGEST_MM = 30.0  # what can be checked at one place: about what a slice view shows without moving
SMOOTHING = 1.5  # sigma, in voxels of the smallest spacing
MOST = 20  # places; more are not visited
FAINTEST = 0.02  # of the first place's uncertainty: below it a place is a speck
_MARGIN = 4  # voxels around what is uncertain that smoothing can reach


@dataclass(frozen=True)
class Place:
    """A region to check.

    Attributes:
        ijk: a voxel within it: its centre of gravity, or where it is most uncertain if that lies outside.
        ras: the same in mm.
        weight_ml: the uncertainty it holds, summed over its volume, mL.
    """

    ijk: tuple[int, int, int]
    ras: tuple[float, float, float]
    weight_ml: float


def uncertain_places(uncertainty: np.ndarray, ijk_to_ras: np.ndarray) -> list[Place]:
    """The most uncertain regions, the heaviest first.

    Args:
        uncertainty: 0 to 1, (k, j, i).
        ijk_to_ras: 4x4, mm.
    """
    box = _around(uncertainty >= LEVELS[0])
    if box is None:
        return []
    part = np.ascontiguousarray(uncertainty[box], dtype=np.float32)
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    voxel_ml = abs(float(np.linalg.det(ijk_to_ras[:3, :3]))) / 1000.0
    start = np.array([side.start for side in box[::-1]])
    found = []
    for voxel, total in _regions(part, spacing):
        ijk = voxel + start
        ras = ijk_to_ras[:3, :3] @ ijk + ijk_to_ras[:3, 3]
        i, j, k = (int(index) for index in ijk)
        r, a, s = (float(mm) for mm in ras)
        found.append(Place((i, j, k), (r, a, s), total * voxel_ml))
    found.sort(key=lambda place: (-place.weight_ml, place.ijk))
    return [place for place in found[:MOST] if place.weight_ml >= FAINTEST * found[0].weight_ml]


def _around(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The box around what is true, with a margin; None when nothing is."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if not len(filled):
            return None
        box.append(slice(max(0, int(filled[0]) - _MARGIN), int(filled[-1]) + 1 + _MARGIN))
    return tuple(slice(side.start, min(side.stop, length)) for side, length in zip(box, mask.shape, strict=True))


def _regions(part: np.ndarray, spacing: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """(voxel (i, j, k), summed uncertainty) of each region."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(part)
    image.SetSpacing(spacing.tolist())
    variance = (SMOOTHING * float(spacing.min())) ** 2
    smooth = sitk.DiscreteGaussian(image, [variance] * 3)
    taken = np.zeros(part.shape, bool)
    for level, next_level in zip(LEVELS, (*LEVELS[1:], np.inf), strict=True):
        pieces = sitk.ConnectedComponent(sitk.GreaterEqual(smooth, level), True)
        numbers = sitk.GetArrayViewFromImage(pieces)
        statistics = sitk.LabelIntensityStatisticsImageFilter()
        statistics.Execute(pieces, smooth)
        for label in statistics.GetLabels():
            peak = np.array(statistics.GetMaximumIndex(label))
            if taken[tuple(peak[::-1])]:
                continue
            size = np.array(statistics.GetBoundingBox(label)[3:]) * spacing
            if size.max() > LARGEST_MM and statistics.GetMaximum(label) >= next_level:
                continue  # its parts at the next level are looked at instead
            inside = numbers == label
            taken |= inside
            centre = np.rint(np.array(statistics.GetCenterOfGravity(label)) / spacing).astype(int)
            yield (centre if inside[tuple(centre[::-1])] else peak), float(part[inside].sum())
