"""On which slices of one plane a user has outlined a structure, with others left out between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..part import Part

MOST_IN_A_ROW = 3  # slices: a brush that is a sphere colours neighbours too, and only a whole structure has longer runs
ACROSS = 0.2  # of the largest outline: one in another plane that is as large is no stray stroke
_REMEDY = "Outline it on two to five slices of one plane, best its first, its last and one between; leave slices out."


class NothingBetweenError(InputError):
    """The structure needs nothing: it is empty, on each of its slices, or followed what was outlined already."""


class DrawnSlices(NamedTuple):
    """Slices across an axis of the array, 0, 1, 2 for k, j, i, in order; people count them from 1."""

    axis: int
    numbers: tuple[int, ...]

    @property
    def between(self) -> list[int]:
        """Those that lie between them."""
        return [number for number in range(self.numbers[0] + 1, self.numbers[-1]) if number not in self.numbers]

    def of(self, mask: np.ndarray) -> np.ndarray:
        """The mask (k, j, i) with 0 on all other slices; slices that it lacks are left out."""
        kept = np.zeros_like(mask)
        at = (slice(None),) * self.axis + ([number for number in self.numbers if number < mask.shape[self.axis]],)
        kept[at] = mask[at]
        return kept


@dataclass(frozen=True, eq=False)
class Earlier:
    """What was proposed for a structure before: from which `slices`, and `mask`, bool (k, j, i), all of it."""

    slices: DrawnSlices
    mask: np.ndarray


def drawn_slices(mask: np.ndarray, name: str, earlier: Earlier | None = None) -> DrawnSlices:
    """Where a structure was outlined.

    Args:
        mask: bool (k, j, i), the structure as it is now.
        name: of it, for messages.
        earlier: the proposal that it comes from, if any; slices that were changed since count as outlined, empty ones
            too.

    Raises:
        NothingBetweenError: nothing is to be done for this structure.
        InputError: it is outlined on one slice only, or on slices of two planes.
    """
    found = _first_time(mask, name) if earlier is None else _since(mask, name, earlier)
    filled = np.flatnonzero(found.of(mask).any(axis=_others(found.axis)))
    if len(filled) < 2:
        raise InputError(
            f"{name} is outlined on one slice only.",
            "What lies between needs an outline on both sides; nothing was changed.",
            "Outline it on one slice more at least, best on its first, its last and one between.",
        )
    if not found.between:
        raise _nothing_left_out(name)
    return found


def _first_time(mask: np.ndarray, name: str) -> DrawnSlices:
    cut = Part.of(mask)
    if not cut.array.size:
        raise NothingBetweenError(f"{name} is empty.", "There is nothing to go by.", _REMEDY)
    there = [np.flatnonzero(cut.array.any(axis=_others(axis))) for axis in range(3)]
    sheets = [_largest_sheet(cut.array, axis) for axis in range(3)]
    plane = int(np.argmax(sheets))
    largest = int(np.count_nonzero(cut.array, axis=_others(plane)).max())
    if any(sheets[axis] > ACROSS * largest for axis in _others(plane)):
        raise InputError(
            f"{name} is outlined on slices of two planes.",
            "What lies between can follow slices of one plane only; nothing was changed.",
            "Erase it on the slices of the other plane, or move those to a segment of their own.",
        )
    axes = [axis for axis in range(3) if _left_out(there[axis])]
    if len(there[plane]) == 1 and sheets[plane]:
        axes = [plane]  # two spots on one slice lie apart in other planes
    if not axes:
        raise _nothing_left_out(name)
    axis = min(axes, key=lambda axis: len(there[axis]))
    return DrawnSlices(axis, tuple(int(number) + cut.start_kji[axis] for number in there[axis]))


def _since(mask: np.ndarray, name: str, earlier: Earlier) -> DrawnSlices:
    axis, numbers = earlier.slices
    changed = np.flatnonzero((mask != earlier.mask).any(axis=_others(axis))).tolist()
    if not changed:
        raise NothingBetweenError(
            f"Nothing of {name} was outlined since it was proposed.",
            "It follows all of its outlines already.",
            "Outline one slice more, or set a proposed one right, and try again.",
        )
    return DrawnSlices(axis, tuple(sorted({*numbers, *changed})))


def _left_out(numbers: np.ndarray) -> bool:
    """Whether slices were left out between these. Two parts of a whole structure, as two kidneys are, lie apart too."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return len(runs) > 1 and min(len(run) for run in runs) <= MOST_IN_A_ROW


def _nothing_left_out(name: str) -> NothingBetweenError:
    return NothingBetweenError(
        f"{name} is on each of its slices already.",
        "Nothing lies between them that could follow.",
        "Leave out slices where it shall be proposed, or correct it by hand.",
    )


def _largest_sheet(mask: np.ndarray, axis: int) -> int:
    """The voxels of the largest outline in this plane: on a slice most of which is one voxel thick, in this direction
    and no other. 0 where there is none."""
    first, second = _others(axis)
    flat = _thin(mask, axis) & ~_thin(mask, first) & ~_thin(mask, second)
    found, all_of = (np.count_nonzero(one, axis=(first, second)) for one in (flat, mask))
    return int(np.where(2 * found > all_of, found, 0).max())


def _thin(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels without a neighbour on either side along the axis."""
    before = np.moveaxis(mask, axis, 0)
    thin = before.copy()
    thin[1:] &= ~before[:-1]
    thin[:-1] &= ~before[1:]
    return np.moveaxis(thin, 0, axis)


def _others(axis: int) -> tuple[int, int]:
    first, second = (other for other in range(3) if other != axis)
    return first, second
