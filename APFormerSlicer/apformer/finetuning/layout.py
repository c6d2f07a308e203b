"""The grid of a model from nothing: context first, resolution second.

A patch that holds less than the organ cannot learn where it is: a left atrium learned in 15 minutes from patches of
90 x 112 x 112 mm at 1.4 mm reached a Dice of 0.49, from the whole field of 320 mm at 3 mm 0.85 (MONAI's DynUNet).
So the patch is the whole image where that costs at most `CONTEXT` times the spacing that the structures alone would
have; else it holds nearly all structures, with a margin, and as much around them as there is room for. The spacing is
the finest at which that fits, and never one at which the thinnest structure would be less than `FEWEST_ACROSS` voxels
wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .extents import Seen

LARGEST_ANISOTROPY = 2.5  # of voxel sizes; above it, neighbouring slices tell a 3D convolution little
FEWEST_SLICES = 16  # two tokens along the axis, at three halvings
MOST_VOXELS = {2: 256**2, 3: 80**3}  # of a patch: what a training step on a CPU can afford
MULTIPLE = 8  # a token is 8 voxels wide
HOLDS, MARGIN = 95, 1.25  # percentile of the structures' boxes that the patch holds, and how much more than that
FEWEST_ACROSS = 3.0  # voxels across the thinnest structure
CONTEXT = 2.5  # how much coarser the spacing may become for the whole image to be seen


@dataclass(frozen=True)
class Layout:
    """Attributes: spacing_mm: along i, j (2D) or R, A, S (3D). patch: voxels, in the same order. across: how many of
    them the thinnest structure is wide where it is thinnest; infinite where nothing is known of structures."""

    spacing_mm: tuple[float, ...]
    patch: tuple[int, ...]
    across: float = math.inf


def is_flat(cases: Sequence[Seen]) -> bool:
    """Whether a network of slices suits the cases: pictures, few slices, or slices far apart."""
    slices = np.median([min(case.shape_kji) for case in cases])
    ratio = np.median([case.spacing_ijk.max() / case.spacing_ijk.min() for case in cases])
    return any(case.is_picture for case in cases) or bool(slices < FEWEST_SLICES or ratio > LARGEST_ANISOTROPY)


def lay_out(cases: Sequence[Seen]) -> Layout:
    """The grid that suits the cases, of slices or volumes as `is_flat` says."""
    axes = [_in_plane(case) if is_flat(cases) else _along_patient(case) for case in cases]
    native = np.median([case.spacing_ijk[order] for case, order in zip(cases, axes, strict=True)], axis=0)
    field = np.median([case.field_ijk[order] for case, order in zip(cases, axes, strict=True)], axis=0)
    seen = [(extent, order) for case, order in zip(cases, axes, strict=True) for extent in case.structures]
    if not seen:
        return _layout(native, field, field, native)
    box = np.percentile([extent.box_mm[order] for extent, order in seen], HOLDS, axis=0)
    chords: dict[int, list[np.ndarray]] = {}
    for extent, order in seen:
        chords.setdefault(extent.value, []).append(extent.chord_mm[order])
    thinnest = np.min([np.median(found, axis=0) for found in chords.values()], axis=0)
    if all(case.is_picture for case in cases):  # the Segmenter brings a picture, as a whole, to the size of the patch
        found = _layout(native, field, field, field)
    else:
        found = _layout(native, field, np.minimum(field, MARGIN * box), np.maximum(native, thinnest / FEWEST_ACROSS))
    return replace(found, across=round(float((thinnest / found.spacing_mm).min()), 2))


def _layout(native: np.ndarray, field: np.ndarray, wanted: np.ndarray, coarsest: np.ndarray) -> Layout:
    spacing = _finest(native, wanted, coarsest)
    whole = _finest(native, field, coarsest)
    if _fits(whole, field) and whole.prod() <= spacing.prod() * CONTEXT ** len(native):
        spacing, wanted = whole, field
    return Layout(tuple(round(float(mm), 4) for mm in spacing), _patch(spacing, _grown(spacing, wanted, field)))


def _finest(native: np.ndarray, window: np.ndarray, coarsest: np.ndarray) -> np.ndarray:
    """The finest spacing at which the window fits, as nearly cubic as the limits allow; the coarsest if none does."""
    low, high = float(native.min()), float(coarsest.max())
    for _ in range(40):  # halves the doubt each time
        middle = (low + high) / 2
        if _fits(np.clip(middle, native, coarsest), window):
            high = middle
        else:
            low = middle
    finest = np.clip(low, native, coarsest)
    return finest if _fits(finest, window) else np.clip(high, native, coarsest)


def _grown(spacing: np.ndarray, wanted: np.ndarray, field: np.ndarray) -> np.ndarray:
    """What is wanted, and as much around it as the patch has room for, in mm."""
    low, high = float(wanted.min()), float(field.max())
    for _ in range(40):
        middle = (low + high) / 2
        if _fits(spacing, np.minimum(field, np.maximum(wanted, middle))):
            low = middle
        else:
            high = middle
    return np.minimum(field, np.maximum(wanted, low))


def _fits(spacing: np.ndarray, window: np.ndarray) -> bool:
    return bool(np.prod(_cells(window / spacing)) <= MOST_VOXELS[len(spacing)])


def _patch(spacing: np.ndarray, window: np.ndarray) -> tuple[int, ...]:
    patch = _cells(window / spacing)
    while np.prod(patch) > MOST_VOXELS[len(spacing)]:
        patch[int(np.argmax(patch))] -= MULTIPLE
    return tuple(int(voxels) for voxels in patch)


def _cells(voxels: np.ndarray) -> np.ndarray:
    """Whole tokens; a trifle of rounding adds none."""
    return np.maximum(2, np.ceil(voxels / MULTIPLE - 1e-6)) * MULTIPLE


def _in_plane(case: Seen) -> list[int]:
    """Which of i, j, k lie in a slice: slices lie along the largest spacing, along k where all are alike."""
    spacing = case.spacing_ijk
    through = 2 if max(case.shape_kji) == 1 or np.ptp(spacing) == 0 else int(np.argmax(spacing))
    return [axis for axis in range(3) if axis != through]


def _along_patient(case: Seen) -> list[int]:
    """Which of i, j, k runs along R, A and S."""
    return [int(np.argmax(np.abs(case.matrix[axis, :3]))) for axis in range(3)]
