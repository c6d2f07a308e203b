"""The checks an image must pass before a network sees it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from .volume import Volume

_LABEL_VALUES_AT_MOST = 160  # TotalSegmentator, the richest common label map, has 117 labels
_SAMPLED_SLICES = 32
SMALLEST_MM, LARGEST_MM = 1.0, 3000.0  # across; a whole-body PET/CT covers 2 m, a micro-CT of a tooth 10 mm
PART = "part"  # kind of source of what was cut out of an image
_OTHER_UNITS = (("micrometres", 0.001), ("metres", 1000.0), ("centimetres", 10.0), ("nanometres", 1e-6))


def check_image(volume: Volume, *, whole: Volume | None = None) -> None:
    """Refuse what cannot be segmented.

    Args:
        whole: what `volume` was cut out of, if it was: a part may be small.

    Raises:
        InputError: empty; one voxel; all one value; NaN or infinity; zero spacing; singular or sheared axes; a field of
            view that cannot be; a label map in place of an image (judged cautiously: whole numbers from 0 in flat
            regions).
    """
    name = volume.source.title
    if volume.array.size == 0:
        raise InputError(f"{name} is empty.", "There are no voxels to segment.", "Choose an image that has voxels.")
    if math.prod(volume.spatial_shape) == 1:
        raise InputError(f"{name} has a single voxel.", "There is nothing to segment in it.", "Choose a whole image.")
    if volume.array.dtype.kind not in "buif":
        raise InputError(
            f"{name} has voxels of type {volume.array.dtype}.",
            "Only real numbers can be segmented.",
            "Convert the image, for example to its magnitude.",
        )
    check_geometry(volume.ijk_to_ras, name)
    check_field_of_view(volume if whole is None else whole)
    low, high = _finite_range(volume, name)
    if low == high:
        raise InputError(
            f"Every voxel of {name} has the value {low:g}.",
            "There is no structure to segment.",
            "Check that the file is the image you meant and that it was exported completely.",
        )
    if low == 0 and high <= 255 and _looks_like_labels(volume.array, int(high)):
        raise InputError(
            f"{name} looks like a label map: whole numbers from 0 to {high:g} in flat regions.",
            "Segmenting a label map gives a meaningless result.",
            "Pass the image itself, not its segmentation.",
        )


def check_field_of_view(volume: Volume) -> None:
    """Raises InputError when an axis of several voxels covers less than 1 mm or more than 3 m: the spacing was written
    in one unit and read in another, which would ask for a million times the memory, or leave nothing to see.

    Pictures are exempt: their pixels have a nominal size.
    """
    if volume.source.kind in ("picture", PART):
        return
    extent = [n * step for n, step in zip(reversed(volume.spatial_shape), volume.spacing_ijk, strict=True)]
    across = [size for n, size in zip(reversed(volume.spatial_shape), extent, strict=True) if n > 1]
    if not across or (min(across) >= SMALLEST_MM and max(across) <= LARGEST_MM):
        return
    name = volume.source.title
    size = " x ".join(f"{length:.0f}" if length >= 100 else f"{length:.3g}" for length in extent)
    wrong = max(across) if max(across) > LARGEST_MM else min(across)
    unit, factor = next(
        ((unit, factor) for unit, factor in _OTHER_UNITS if _plausible([length * factor for length in across])),
        ("another unit", None),
    )
    corrected = "" if factor is None else f" (multiply it by {factor:g})"
    raise InputError(
        f"{name} covers {size} mm; along one axis that is {_length(wrong)}.",
        f"No image of a patient does: the spacing seems to be in {unit}, not in millimetres. Sizes and volumes would "
        "be wrong, and resampling it could ask for more memory than there is.",
        f"Correct the spacing in the file's header{corrected}, or export the image again in millimetres.",
    )


def _plausible(across: list[float]) -> bool:
    return min(across) >= SMALLEST_MM and max(across) <= LARGEST_MM


def _length(length_mm: float) -> str:
    return f"{length_mm / 1000:.3g} m" if length_mm > LARGEST_MM else f"{1000 * length_mm:.3g} micrometres"


def check_geometry(ijk_to_ras: np.ndarray, name: str) -> None:
    """Raises InputError, beginning with `name`, for spacing that is zero or not finite, and for singular or sheared
    axes."""
    steps = ijk_to_ras[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    if not np.all(np.isfinite(ijk_to_ras)) or np.any(spacing <= 0):
        raise InputError(
            f"{name} has voxel spacing {tuple(float(f'{s:g}') for s in spacing)} mm.",
            "Sizes and volumes cannot be computed from it.",
            "Correct the spacing in the file's header, or export the image again.",
        )
    cosines = (steps / spacing).T @ (steps / spacing)
    worst = float(np.max(np.abs(cosines - np.diag(np.diag(cosines)))))
    if abs(float(np.linalg.det(steps / spacing))) < 1e-3:
        raise InputError(
            f"{name} has a singular direction matrix: its axes lie in one plane.",
            "Voxels cannot be placed in the patient.",
            "Correct the direction in the file's header, or export the image again.",
        )
    if worst > 0.02:  # about one degree; rounding in headers stays far below
        raise InputError(
            f"{name} has sheared axes ({math.degrees(math.acos(min(worst, 1.0))):.1f} degrees instead of 90).",
            "Networks and distances in mm assume axes at right angles.",
            "Resample it to a rectangular grid first, for example with Slicer's Resample modules.",
        )


def _finite_range(volume: Volume, name: str) -> tuple[float, float]:
    """Minimum and maximum, slice by slice so that no full-size mask is made."""
    low, high = math.inf, -math.inf
    for k in range(volume.spatial_shape[0]):
        part = volume.array[..., k, :, :]
        smallest, largest = float(part.min()), float(part.max())  # NaN survives both
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise InputError(
                f"{name} has NaN or infinite voxels (first in slice k = {k}).",
                "Intensities cannot be normalised, and the result would be wrong around them.",
                "Replace them by the background value and try again.",
            )
        low, high = min(low, smallest), max(high, largest)
    return low, high


def _looks_like_labels(array: np.ndarray, highest: int) -> bool:
    if array.ndim == 4 and array.shape[0] > 1:
        return False
    volume = array.reshape(array.shape[-3:])
    sample = volume[:: max(1, len(volume) // _SAMPLED_SLICES)]
    if sample.dtype.kind == "f" and not np.array_equal(sample, np.rint(sample)):
        return False
    values = np.flatnonzero(np.bincount(sample.astype(np.uint8).ravel(), minlength=highest + 1))
    mask_0_255 = len(values) == 2 and highest == 255
    if len(values) > _LABEL_VALUES_AT_MOST or (highest > 2 * len(values) + 8 and not mask_0_255):
        return False
    left, right = sample[..., :-1], sample[..., 1:]
    inside = (left != 0) | (right != 0)
    return bool(inside.any()) and float(np.mean((left == right)[inside])) > 0.7
