"""From single DICOM slices to one even stack: order, orientation, tilt, gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError

# Scanners round positions, some to 0.1 mm; a tenth of a slice cannot be seen at a label's border, a missing slice
# always shows as at least half a slice.
_POSITION_TOLERANCE = 0.1
_TILT_TOLERANCE_MM = 0.1  # at least; or a quarter of a pixel
SAME_PLACE_MM = 1e-3
_COMPARED = 100  # slices that are compared with each other to find what is usual
_LARGEST_GAP_FILLED = 2.5  # in slice steps; interpolating further would invent anatomy


@dataclass(frozen=True)
class Plane:
    """Where one slice lies: the LPS position of its first pixel's centre, the LPS directions of growing column (i) and
    row (j) index, and the pixel spacing along i and j in mm."""

    position: np.ndarray
    along_i: np.ndarray
    along_j: np.ndarray
    spacing_ij: tuple[float, float]

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.along_i, self.along_j)


@dataclass(frozen=True)
class Stack:
    """An even grid over sorted slices. `order[k]` is the slice that lies k-th along the normal; `k_of_slice[k]` is its
    place on the grid in steps, whole numbers unless gaps are uneven; `length` is the number of grid slices."""

    order: tuple[int, ...]
    ijk_to_lps: np.ndarray
    k_of_slice: np.ndarray
    length: int
    notes: tuple[str, ...] = ()

    @property
    def even(self) -> bool:
        return self.length == len(self.order) and bool(np.all(self.k_of_slice == np.arange(self.length)))


def stack_planes(planes: Sequence[Plane], thickness: float, name: str, files: Sequence[str]) -> Stack:
    """Sort slices along their normal and lay an even grid through them.

    Args:
        thickness: slice thickness in mm, the k spacing of a single slice.
        name: what to call the series in errors.
        files: what to call each slice in errors.

    Raises:
        InputError: bad pixel spacing, slices that are not parallel, two slices in one place, gantry tilt, or a gap
            too large to fill.
    """
    first = planes[0]
    _check_parallel(planes, name, files)
    positions = np.array([plane.position for plane in planes])
    along = (positions - first.position) @ first.normal
    order = tuple(int(n) for n in np.argsort(along, kind="stable"))
    along, positions = along[list(order)], positions[list(order)]
    if len(planes) == 1:
        return Stack(order, _matrix(first, positions[0], thickness), np.zeros(1), 1)
    gaps, sorted_files = np.diff(along), [files[n] for n in order]
    step = step_of(gaps)
    _check_distinct(gaps, step, name, sorted_files)
    _check_tilt(positions, first, name)
    even_step = float(along[-1] - along[0]) / (len(planes) - 1)
    off_grid = np.abs(along - along[0] - even_step * np.arange(len(planes)))
    if off_grid.max() <= _POSITION_TOLERANCE * even_step:
        return Stack(order, _matrix(first, positions[0], even_step), np.arange(len(planes), dtype=float), len(planes))
    if gaps.max() > _LARGEST_GAP_FILLED * step:
        before = int(gaps.argmax())
        raise InputError(
            f"{name} has a gap of {gaps.max():.2f} mm between slices that otherwise lie {step:.2f} mm apart "
            f"({sorted_files[before]} and {sorted_files[before + 1]}).",
            "Slices are missing, and the anatomy between them is not known.",
            "Export the complete series again, or leave out what lies before or after the gap (--skip FILE on the "
            "command line).",
        )
    k_of_slice = (along - along[0]) / step
    length = math.floor(k_of_slice[-1] + _POSITION_TOLERANCE) + 1
    note = (
        f"uneven slice gaps ({gaps.min():.2f} to {gaps.max():.2f} mm) resampled to {step:.2f} mm; the result is on "
        "that grid, not on the acquired slices"
    )
    return Stack(order, _matrix(first, positions[0], step), k_of_slice, length, (f"{name}: {note}",))


def resample(slices: np.ndarray, stack: Stack) -> np.ndarray:
    """Sorted slices, (..., n, rows, columns), linearly interpolated to the even grid, in their own type."""
    shape = (*slices.shape[:-3], stack.length, *slices.shape[-2:])
    even = np.empty(shape, slices.dtype)
    for k in range(stack.length):
        upper = int(np.clip(np.searchsorted(stack.k_of_slice, k), 1, len(stack.order) - 1))
        low, high = stack.k_of_slice[upper - 1 : upper + 1]
        weight = float(np.clip((k - low) / (high - low), 0.0, 1.0))
        mixed = slices[..., upper - 1, :, :] * (1.0 - weight) + slices[..., upper, :, :] * weight
        even[..., k, :, :] = mixed if slices.dtype.kind == "f" else np.rint(mixed)
    return even


def _matrix(plane: Plane, origin: np.ndarray, step: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 0] = plane.along_i * plane.spacing_ij[0]
    matrix[:3, 1] = plane.along_j * plane.spacing_ij[1]
    matrix[:3, 2] = plane.normal * step
    matrix[:3, 3] = origin
    return matrix


def same_kind(one: Plane, other: Plane) -> bool:
    """True when both can lie in one stack: parallel, and with the same pixel spacing."""
    return bool(
        np.allclose([one.along_i, one.along_j], [other.along_i, other.along_j], atol=1e-3)
        and np.allclose(one.spacing_ij, other.spacing_ij, rtol=1e-4)
    )


def step_of(gaps: np.ndarray) -> float:
    """The usual distance of neighbouring slices; those that lie in one place have none."""
    return float(np.median(gaps[gaps > SAME_PLACE_MM])) if np.any(gaps > SAME_PLACE_MM) else 0.0


def _check_parallel(planes: Sequence[Plane], name: str, files: Sequence[str]) -> None:
    for plane, file in zip(planes, files, strict=True):
        si, sj = plane.spacing_ij
        if not (0 < si < math.inf and 0 < sj < math.inf) or not np.all(np.isfinite(plane.position)):
            raise InputError(
                f"{name} has pixel spacing {si:g} x {sj:g} mm or a position that is no number ({file}).",
                "Sizes and volumes in mm cannot be computed from it.",
                "Export the series again from the scanner or archive.",
            )
        unit = abs(np.linalg.norm(plane.along_i) - 1) < 1e-3 and abs(np.linalg.norm(plane.along_j) - 1) < 1e-3
        if not unit or abs(float(plane.along_i @ plane.along_j)) > 1e-3:
            raise InputError(
                f"{name} has row and column directions that are not at right angles ({file}).",
                "Its voxels cannot be placed in the patient.",
                "Export the series again from the scanner or archive.",
            )
    if not all(same_kind(plane, planes[0]) for plane in planes):
        sample = planes[:_COMPARED]
        usual = max(sample, key=lambda plane: sum(same_kind(plane, other) for other in sample))
        odd = [file for plane, file in zip(planes, files, strict=True) if not same_kind(plane, usual)]
        raise InputError(
            f"{name} has slices of different orientation or pixel spacing, such as a localizer has ({listed(odd)}).",
            "They do not form one volume.",
            "Choose a series of parallel slices, or leave the others out (--skip FILE on the command line).",
        )


def listed(names: Sequence[str]) -> str:
    """Up to three names for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_distinct(gaps: np.ndarray, step: float, name: str, files: Sequence[str]) -> None:
    doubled = np.flatnonzero(gaps <= max(SAME_PLACE_MM, 0.01 * step))
    if len(doubled):
        pairs = listed([f"{files[n]} with {files[n + 1]}" for n in doubled.tolist()])
        raise InputError(
            f"{name} has {len(doubled)} slices that lie where another slice lies: {pairs}.",
            "Their voxels differ: it holds several volumes (time points, echoes, b-values) or a slice too many, and "
            "which one to segment is not known.",
            "Leave the wrong ones out (--skip FILE on the command line), export one of the volumes as its own series, "
            "or save it as NRRD from Slicer and pass that.",
        )


def _check_tilt(positions: np.ndarray, plane: Plane, name: str) -> None:
    offsets = positions - positions[0]
    sideways = offsets - np.outer(offsets @ plane.normal, plane.normal)
    drift = np.linalg.norm(sideways, axis=1)
    worst = int(drift.argmax())
    if drift[worst] <= max(_TILT_TOLERANCE_MM, 0.25 * min(plane.spacing_ij)):
        return
    angle = math.degrees(math.atan2(drift[worst], abs(float(offsets[worst] @ plane.normal))))
    raise InputError(
        f"{name} was acquired with gantry tilt: slices shift sideways by {drift[worst]:.1f} mm ({angle:.1f} degrees).",
        "Stacked as they are, they would give a sheared body and wrong volumes.",
        "Load it in Slicer, which straightens tilted series, harden the transform, save as NRRD and pass that.",
    )
