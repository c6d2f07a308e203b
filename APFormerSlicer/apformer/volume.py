"""Voxels and their place in the patient: orientation, regions, cropping and pasting back.

Array axes are (k, j, i), with channels in front where there are any; matrices map (i, j, k) to RAS in millimetres.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .checks import check_field_of_view, check_geometry, check_image
from .errors import InputError

if TYPE_CHECKING:
    from .files.nifti_forms import NiftiForms

__all__ = ["Reorientation", "Roi", "Source", "Volume", "check_field_of_view", "check_geometry", "check_image", "paste"]

_ENDS = ("LR", "PA", "IS")  # the two ends of each RAS axis, negative end first
# Any direction that favours no anatomical axis would do: it only decides between axes that are equally close.
_TIE_BREAKER = np.array([0.8137, 0.5223, 0.2551])


@dataclass(frozen=True)
class Source:
    """Where a volume came from.

    `kind` is "nifti", "nrrd", "mha", "seg.nrrd", "dicom", "picture", "memory" or "part" (of an image). `dicom_files`
    has one file per k of the array (or the one multi-frame file) and is empty when the array is no longer on the
    acquired slices.
    `nifti_forms`: how a NIfTI header placed the voxels, to be written back with a result. `name`: what a user calls an
    image that has no path.
    """

    path: Path | None
    dicom_files: tuple[Path, ...] = ()
    series_uid: str | None = None
    kind: str = "memory"
    nifti_forms: NiftiForms | None = None
    name: str = ""

    @property
    def title(self) -> str:
        """What messages call the image."""
        return str(self.path) if self.path else self.name or "The image"


@dataclass(frozen=True)
class Reorientation:
    """An exact change of axes: array axes are permuted, then flipped. No voxel value is touched.

    `order[a]` is the old i, j or k axis (0, 1, 2) that becomes new axis a; `flips[a]` tells whether a runs backwards.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """A view of `array` ((k, j, i) or (C, k, j, i)) with the new axes."""
        axes = [2 - self.order[2 - axis] for axis in range(3)]
        return self._flipped(_transposed(array, axes))

    def undo(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `apply`, exactly: `undo(apply(a))` has every voxel of `a` where it was."""
        axes = [2 - self.order.index(2 - axis) for axis in range(3)]
        return _transposed(self._flipped(array), axes)

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        i, j, k = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return array[..., k, j, i]


def _transposed(array: np.ndarray, spatial_axes: Sequence[int]) -> np.ndarray:
    lead = array.ndim - 3
    return array.transpose(*range(lead), *(lead + axis for axis in spatial_axes))


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or label map with its geometry.

    Args:
        array: (k, j, i), or (C, k, j, i) with C channels; any real dtype, kept as stored.
        ijk_to_ras: 4x4, millimetres; columns are the steps along i, j, k and the centre of voxel (0, 0, 0).
        modality: "CT", "MR", "RGB", another DICOM modality, or None when unknown.
        notes: what a caller must show, such as "uneven slice gaps resampled".

    Raises:
        InputError: the array has fewer than 3 or more than 4 axes, or the matrix is not 4x4.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    modality: str | None = None
    source: Source = Source(None)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4):
            raise InputError(
                f"The array has {self.array.ndim} axes.",
                "A volume has axes (k, j, i), or (channel, k, j, i).",
                "Pass one volume; give a single slice a first axis of length 1.",
            )
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise InputError(
                f"The geometry matrix has shape {matrix.shape}.",
                "Voxels are placed by a 4x4 matrix from (i, j, k) to RAS in mm.",
                "Pass a 4x4 matrix.",
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "ijk_to_ras", matrix)

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """(k, j, i)"""
        k, j, i = self.array.shape[-3:]
        return k, j, i

    @property
    def channels(self) -> int:
        return 1 if self.array.ndim == 3 else int(self.array.shape[0])

    @property
    def spacing_ijk(self) -> tuple[float, float, float]:
        """Distance between voxel centres along i, j, k in mm."""
        si, sj, sk = (float(step) for step in np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0))
        return si, sj, sk

    @property
    def voxel_volume_ml(self) -> float:
        return abs(float(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000.0

    @property
    def orientation(self) -> str:
        """The anatomical directions that i, j, k point towards, such as "RAS"; the closest ones when oblique."""
        return "".join(_ENDS[world][int(towards)] for world, towards in _closest_axes(self.ijk_to_ras))

    def with_array(self, array: np.ndarray) -> Volume:
        """Another array on this grid; the spatial shape must be the same.

        Raises:
            InputError: the shape differs.
        """
        if array.shape[-3:] != self.spatial_shape:
            raise InputError(
                f"An array of shape {array.shape} does not fit a grid of {self.spatial_shape} (k, j, i).",
                "Its voxels would lie in the wrong place.",
                "Pass an array on the grid of the volume.",
            )
        return replace(self, array=array)

    def reorientation(self, code: str) -> Reorientation:
        """How to bring the axes to `code`, such as "LPS".

        Raises:
            InputError: `code` does not name each anatomical axis once.
        """
        wanted = _parse_code(code)
        have = _closest_axes(self.ijk_to_ras)
        worlds = [world for world, _ in have]
        a, b, c = (worlds.index(world) for world, _ in wanted)
        flips = [have[old][1] != towards for old, (_, towards) in zip((a, b, c), wanted, strict=True)]
        return Reorientation((a, b, c), (flips[0], flips[1], flips[2]))

    def oriented(self, code: str) -> Volume:
        """The same voxels in the same place with axes permuted and flipped to `code`; the array is a view.

        To bring an array back, `volume.reorientation(code).undo(array)` is exact to the bit, the matrix included
        when it is put on the first volume with `with_array`.
        """
        change = self.reorientation(code)
        matrix = np.eye(4)
        matrix[:3, 3] = self.ijk_to_ras[:3, 3]
        lengths = self.spatial_shape[::-1]
        for new, (old, flip) in enumerate(zip(change.order, change.flips, strict=True)):
            step = self.ijk_to_ras[:3, old]
            matrix[:3, new] = -step if flip else step
            if flip:
                matrix[:3, 3] += step * (lengths[old] - 1)
        return replace(self, array=change.apply(self.array), ijk_to_ras=matrix)

    def cropped(self, roi: Roi) -> Volume:
        """The part inside `roi` as a view, its voxels in the same place.

        Raises:
            InputError: the ROI is empty or reaches outside.
        """
        roi.check_inside(self.spatial_shape)
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 3] += matrix[:3, :3] @ np.array(roi.start_ijk, dtype=float)
        return replace(self, array=self.array[(..., *roi.slices_kji)], ijk_to_ras=matrix)


@dataclass(frozen=True)
class Roi:
    """A box of voxels, half open: start <= index < stop, in (i, j, k)."""

    start_ijk: tuple[int, int, int]
    stop_ijk: tuple[int, int, int]

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        i, j, k = (stop - start for start, stop in zip(self.start_ijk, self.stop_ijk, strict=True))
        return k, j, i

    @property
    def slices_kji(self) -> tuple[slice, slice, slice]:
        i, j, k = (slice(start, stop) for start, stop in zip(self.start_ijk, self.stop_ijk, strict=True))
        return k, j, i

    def check_inside(self, shape_kji: Sequence[int]) -> None:
        """Raises InputError when the box is empty or not wholly inside a grid of `shape_kji`."""
        for axis, start, stop, length in zip("ijk", self.start_ijk, self.stop_ijk, reversed(shape_kji), strict=True):
            if start >= stop:
                raise InputError(
                    f"The region of interest is empty along {axis} ({start}:{stop}).",
                    "There is nothing in it to segment.",
                    "Give a start that is smaller than the stop.",
                )
            if start < 0 or stop > length:
                raise InputError(
                    f"The region of interest {start}:{stop} along {axis} reaches outside the volume (0:{length}).",
                    "Voxels that do not exist cannot be segmented.",
                    f"Keep the {axis} range within 0:{length}.",
                )

    @classmethod
    def parse(cls, text: str, volume: Volume) -> Roi:
        """Read "i0:i1,j0:j1,k0:k1" (voxels, half open) or "r0,r1,a0,a1,s0,s1" (RAS bounds in mm).

        Raises:
            InputError: malformed, empty, or outside the volume.
        """
        parts = [part.strip() for part in text.split(",")]
        try:
            if ":" in text:
                bounds = [[int(end) for end in part.split(":")] for part in parts]
                (i0, i1), (j0, j1), (k0, k1) = bounds
            else:
                r0, r1, a0, a1, s0, s1 = (float(part) for part in parts)
        except ValueError as error:
            raise InputError(
                f"The region of interest {text!r} cannot be read.",
                "It is neither three voxel ranges nor six bounds in mm.",
                "Write i0:i1,j0:j1,k0:k1 (voxels) or r0,r1,a0,a1,s0,s1 (RAS, mm), for example -60,20,-30,50,0,80.",
            ) from error
        if ":" not in text:
            return cls.from_ras_bounds((r0, r1, a0, a1, s0, s1), volume)
        roi = cls((i0, j0, k0), (i1, j1, k1))
        roi.check_inside(volume.spatial_shape)
        return roi

    @classmethod
    def from_ras_bounds(cls, bounds: Sequence[float], volume: Volume) -> Roi:
        """The voxels with centres within (r0, r1, a0, a1, s0, s1) mm, clipped to the volume; at least one per axis.

        On an oblique volume the box encloses the eight corners of the bounds.

        Raises:
            InputError: not six finite numbers in ascending pairs, or no overlap with the volume.
        """
        if len(bounds) != 6 or not all(math.isfinite(bound) for bound in bounds):
            raise InputError(
                f"The region of interest {tuple(bounds)} is not six finite numbers.",
                "Its place in the volume is unknown.",
                "Give r0, r1, a0, a1, s0, s1 in mm.",
            )
        low, high = np.array(bounds[0::2], dtype=float), np.array(bounds[1::2], dtype=float)
        if np.any(low > high):
            raise InputError(
                f"The region of interest {tuple(bounds)} has a lower bound above its upper bound.",
                "Nothing lies in such a box.",
                "Give each pair in ascending order: r0 <= r1, a0 <= a1, s0 <= s1.",
            )
        check_geometry(volume.ijk_to_ras, "The volume")
        corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
        ijk = np.linalg.solve(volume.ijk_to_ras[:3, :3], (corners - volume.ijk_to_ras[:3, 3]).T)
        start, stop = _voxels_within(ijk.min(axis=1), ijk.max(axis=1))
        lengths = np.array(volume.spatial_shape[::-1])
        if np.any(stop <= 0) or np.any(start >= lengths):
            raise InputError(
                f"The region of interest {tuple(bounds)} mm (RAS) lies outside the volume.",
                "There are no voxels in it to segment.",
                f"The volume covers {_describe_bounds(volume)}; choose a box that overlaps it.",
            )
        i0, j0, k0 = (int(index) for index in np.maximum(start, 0))
        i1, j1, k1 = (int(index) for index in np.minimum(stop, lengths))
        return cls((i0, j0, k0), (i1, j1, k1))


def paste(small: np.ndarray, roi: Roi, shape_kji: Sequence[int], fill: float = 0) -> np.ndarray:
    """Put a cropped array ((k, j, i) or (C, k, j, i)) back: an array of `shape_kji` that is `fill` outside the ROI.

    Raises:
        InputError: the ROI reaches outside `shape_kji`, or `small` does not have its shape.
    """
    roi.check_inside(shape_kji)
    if small.shape[-3:] != roi.shape_kji:
        raise InputError(
            f"An array of shape {small.shape} does not fit a region of {roi.shape_kji} (k, j, i).",
            "Its voxels would lie in the wrong place.",
            "Paste an array of the shape of the region.",
        )
    whole = np.full((*small.shape[:-3], *shape_kji), fill, dtype=small.dtype)
    whole[(..., *roi.slices_kji)] = small
    return whole


def _closest_axes(ijk_to_ras: np.ndarray) -> list[tuple[int, bool]]:
    """For i, j, k: the closest RAS axis (0, 1, 2) and whether it points to its positive end.

    The choice depends on the set of axes only, not on their order or sign, so it survives `oriented`.
    """
    check_geometry(ijk_to_ras, "The volume")
    cosines = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)

    def closeness(axes: tuple[int, ...]) -> float:
        ties = [float(abs((cosines[:, axis] * _TIE_BREAKER).sum())) for axis in axes]
        return sum(float(abs(cosines[world, axes[world]])) + 1e-6 * world * ties[world] for world in range(3))

    best = max(itertools.permutations(range(3)), key=closeness)  # best[world] = image axis
    return [(best.index(axis), bool(cosines[best.index(axis), axis] > 0)) for axis in range(3)]


def _parse_code(code: str) -> list[tuple[int, bool]]:
    axes = [(world, letter == ends[1]) for letter in code for world, ends in enumerate(_ENDS) if letter in ends]
    if len(code) != 3 or sorted(world for world, _ in axes) != [0, 1, 2]:
        raise InputError(
            f"{code!r} is not an orientation.",
            "An orientation names where i, j and k point to, one letter for each of L/R, P/A and I/S.",
            "Write, for example, RAS or LPS.",
        )
    return axes


def _voxels_within(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tolerance = 1e-6  # of a voxel: bounds that name a centre exactly include it whatever the rounding
    start, stop = np.ceil(low - tolerance).astype(int), np.floor(high + tolerance).astype(int) + 1
    between = stop <= start  # the bounds fall between two centres: take the voxel they lie in
    middle = np.rint((low + high) / 2).astype(int)
    return np.where(between, middle, start), np.where(between, middle + 1, stop)


def _describe_bounds(volume: Volume) -> str:
    ends = [(0, length - 1) for length in volume.spatial_shape[::-1]]
    corners = np.array(list(itertools.product(*ends))) @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
    low, high = corners.min(axis=0), corners.max(axis=0)
    return ", ".join(f"{axis} {a:.1f} to {b:.1f}" for axis, a, b in zip("RAS", low, high, strict=True)) + " mm"
