"""Where to look first: connected regions in which the network was unsure, by how much uncertainty they hold.

A thin line of uncertainty runs around everything that is segmented. Smoothing makes it faint, so that what remains is
where the network was unsure over more than a border.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .part import Part

if TYPE_CHECKING:
    import SimpleITK as sitk

# Uncertainty (0 to 1) after smoothing from which a region counts; a region that is too large is divided by the next.
LEVELS = (0.25, 0.4, 0.55, 0.7, 0.85)
LARGEST_MM = 30.0  # what can be checked at one place: about what a slice view shows without moving
SMOOTHING = 1.5  # sigma, in voxels of the smallest spacing
MOST = 20  # places; more are not visited
FAINTEST = 0.02  # of the first place's uncertainty: below it a place is a speck
_MARGIN = 4  # voxels around what is uncertain that smoothing can reach

_Three = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A region to check.

    Attributes:
        ijk: a voxel within it: its centre of gravity, or where it is most uncertain if that lies outside.
        ras: the same in mm.
        weight_ml: the uncertainty it holds, summed over its volume, mL.
        start_ijk, stop_ijk: the box around it, half open.
    """

    ijk: _Three
    ras: tuple[float, float, float]
    weight_ml: float
    start_ijk: _Three
    stop_ijk: _Three

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Place:
        """What `as_dict` gave.

        Raises:
            ValueError, KeyError, TypeError: it is no place.
        """
        voxels = [tuple(int(index) for index in data[name]) for name in ("ijk", "start_ijk", "stop_ijk")]
        (i, j, k), (i0, j0, k0), (i1, j1, k1) = voxels
        r, a, s = (float(mm) for mm in data["ras"])
        weight = float(data["weight_ml"])
        if not all(math.isfinite(number) for number in (r, a, s, weight)):
            raise ValueError(f"{data['ras']}, {weight} mL")
        return Place((i, j, k), (r, a, s), weight, (i0, j0, k0), (i1, j1, k1))


@dataclass(frozen=True)
class _Region:
    """A connected region, in voxels (i, j, k) of the array that was looked at. `total`: its summed uncertainty."""

    voxel: np.ndarray
    total: float
    start: np.ndarray
    size: np.ndarray

    def moved(self, by: np.ndarray) -> _Region:
        return _Region(self.voxel + by, self.total, self.start + by, self.size)


def uncertain_places(uncertainty: np.ndarray, ijk_to_ras: np.ndarray) -> list[Place]:
    """The most uncertain regions, the heaviest first.

    Args:
        uncertainty: 0 to 1, (k, j, i).
        ijk_to_ras: 4x4, mm.
    """
    import SimpleITK as sitk

    around = Part.of(uncertainty >= LEVELS[0])
    if not around.array.size:
        return []
    k, j, i = (
        slice(max(0, side.start - _MARGIN), min(side.stop + _MARGIN, length))
        for side, length in zip(around.box_kji, around.shape_kji, strict=True)
    )
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(uncertainty[k, j, i], dtype=np.float32))
    image.SetSpacing(spacing.tolist())
    smooth = sitk.DiscreteGaussian(image, [(SMOOTHING * float(spacing.min())) ** 2] * 3)
    start = np.array([i.start, j.start, k.start])
    found = [_place(region.moved(start), ijk_to_ras) for region in _regions(image, smooth, 0)]
    found.sort(key=lambda place: (-place.weight_ml, place.ijk))
    return [place for place in found[:MOST] if place.weight_ml >= FAINTEST * found[0].weight_ml]


def _regions(image: sitk.Image, smooth: sitk.Image, level: int) -> Iterator[_Region]:
    """The regions at a level, and instead of those that are too large, their parts at the next one.

    Every array is read a fixed number of times, however many regions there are: only the box of a large one is looked
    at again.
    """
    import SimpleITK as sitk

    pieces = sitk.ConnectedComponent(sitk.GreaterEqual(smooth, LEVELS[level]), True)
    shapes, sums = sitk.LabelIntensityStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
    shapes.Execute(pieces, smooth)
    sums.Execute(pieces, image)
    spacing, origin = np.array(image.GetSpacing()), np.array(image.GetOrigin())
    for label in shapes.GetLabels():
        box = np.array(shapes.GetBoundingBox(label))
        start, size = box[:3], box[3:]
        next_level = LEVELS[level + 1] if level + 1 < len(LEVELS) else math.inf
        if (size * spacing).max() > LARGEST_MM and shapes.GetMaximum(label) >= next_level:
            crop = [slice(int(first), int(first + length)) for first, length in zip(start, size, strict=True)]
            inside = sitk.Cast(pieces[crop[0], crop[1], crop[2]] == label, sitk.sitkFloat32)
            within = smooth[crop[0], crop[1], crop[2]] * inside
            for region in _regions(image[crop[0], crop[1], crop[2]], within, level + 1):
                yield region.moved(start)
            continue
        centre = np.rint((np.array(shapes.GetCenterOfGravity(label)) - origin) / spacing).astype(int)
        i, j, k = (int(index) for index in centre)
        voxel = centre if pieces[i, j, k] == label else np.array(shapes.GetMaximumIndex(label))
        yield _Region(voxel, float(sums.GetSum(label)), start, size)


def _place(region: _Region, ijk_to_ras: np.ndarray) -> Place:
    voxel_ml = abs(float(np.linalg.det(ijk_to_ras[:3, :3]))) / 1000.0
    r, a, s = (float(mm) for mm in ijk_to_ras[:3, :3] @ region.voxel + ijk_to_ras[:3, 3])
    ends = (region.voxel, region.start, region.start + region.size)
    (i, j, k), (i0, j0, k0), (i1, j1, k1) = ([int(index) for index in end] for end in ends)
    return Place((i, j, k), (r, a, s), region.total * voxel_ml, (i0, j0, k0), (i1, j1, k1))
