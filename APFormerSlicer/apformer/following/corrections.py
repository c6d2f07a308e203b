"""What a user has settled in a proposal: voxels that were painted or erased, and whole slices marked as right."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..bundles.labels import HIGHEST_LABEL
from ..errors import InputError

MOST_GROUPS = 255  # corrections that are told apart; later ones join the last


class Plane(NamedTuple):
    """A slice of a volume: the axis it is perpendicular to (0, 1, 2 of an array k, j, i), and which one."""

    axis: int
    number: int


@dataclass(frozen=True, eq=False)
class Corrections:
    """A segmentation as it is now, and what in it is certain; made by `of`, which checks it.

    Attributes:
        labels: uint8 (k, j, i), as it is now: the model's values, and those of structures that the model does not know.
        proposal: uint8, the same as the model proposed it.
        values: the model's label values.
        groups: uint8 (k, j, i): 0 where nothing was settled, else which correction settled the voxel, from 1. A slice
            that was marked is one, the strokes on one slice are another.
        right: the slices that were marked as right.
        stroked: how many more slices have strokes.
    """

    labels: np.ndarray
    proposal: np.ndarray
    values: frozenset[int]
    groups: np.ndarray
    right: tuple[Plane, ...]
    stroked: int

    @staticmethod
    def of(
        proposal: np.ndarray,
        labels: np.ndarray,
        values: Iterable[int],
        *,
        right: Collection[Plane] = (),
        certain: np.ndarray | None = None,
        axis: int = 0,
    ) -> Corrections:
        """Compare what was proposed with what the user has made of it.

        Args:
            proposal, labels: label maps of one shape (k, j, i), whole numbers from 0 to 255.
            values: the model's; other values are structures of the user's own, and no correction.
            right: slices that the user vouches for, changed or not.
            certain: bool (k, j, i), voxels that were settled before, such as `Followed.certain` of an earlier proposal.
            axis: perpendicular to the slices that the user draws on; strokes are counted by these.

        Raises:
            InputError: the maps do not fit each other or are none, nothing was settled, or nothing is left to follow.
        """
        before, now = _label_map(proposal, "The proposal"), _label_map(labels, "The segmentation")
        _check_same_shape(before.shape, now.shape, "The proposal and the segmentation")
        known = frozenset(int(value) for value in values)
        settled = changed(before, now, known)
        if certain is not None:
            _check_same_shape(certain.shape, now.shape, "What was certain before and the segmentation")
            settled |= certain.astype(bool)
        marked = _checked(right, now.shape)
        groups = _groups(settled, marked, axis)
        if not groups.any():
            raise InputError(
                "Nothing was corrected since the proposal.",
                "There is nothing to learn from, and the proposal stays as it is.",
                "Correct a slice, or mark one as right, and try again.",
            )
        if groups.all():
            raise InputError(
                "Every voxel was settled by hand.",
                "Nothing is left that could follow the corrections; the segmentation stays as it is.",
                "Take back the mark from slices that should be proposed anew.",
            )
        if only(before, known).any() and not only(now, known).any():
            raise InputError(
                "The corrections erase all that the model had found.",
                "The network would learn that there is nothing; the segmentation stays as it is.",
                "Draw the structure on one slice at least, or choose another model.",
            )
        strokes = len(np.unique(groups[groups > 0])) - len(marked)
        return Corrections(now, before, known, groups, marked, max(0, strokes))

    @property
    def certain(self) -> np.ndarray:
        """Bool (k, j, i): what the user has settled."""
        return self.groups > 0

    @property
    def untouched(self) -> np.ndarray:
        """Bool (k, j, i): where a new proposal may be written: neither settled nor a structure of the user's own."""
        return (self.groups == 0) & (self.known == self.labels)

    @property
    def known(self) -> np.ndarray:
        """`labels` with 0 for structures that the model does not know."""
        return only(self.labels, self.values)

    def __str__(self) -> str:
        """ "2 corrected slices", "strokes on 1 slice", or both."""
        parts = [f"{_count(len(self.right), 'corrected slice')}"] if self.right else []
        parts += [f"strokes on {_count(self.stroked, 'slice')}"] if self.stroked else []
        return " and ".join(parts)


def changed(before: np.ndarray, now: np.ndarray, values: Collection[int]) -> np.ndarray:
    """Bool (k, j, i): where structures with these values are others now. What another structure was drawn over tells
    nothing of them: most editors erase them there."""
    known = only(now, values)
    return (only(before, values) != known) & (known == now)


def only(labels: np.ndarray, values: Collection[int]) -> np.ndarray:
    """`labels` with 0 in place of values that are not among `values`."""
    table = np.zeros(HIGHEST_LABEL + 1, np.uint8)
    for value in values:
        table[value] = value
    return table[labels]


def _groups(settled: np.ndarray, marked: Collection[Plane], axis: int) -> np.ndarray:
    """See `Corrections.groups`. Where two marked slices cross, the later one has the voxel."""
    groups = np.zeros(settled.shape, np.uint8)
    for group, (across, number) in enumerate(marked, 1):
        groups[(slice(None),) * across + (number,)] = min(group, MOST_GROUPS)
    loose = settled & (groups == 0)
    stroked = np.flatnonzero(loose.any(axis=tuple(other for other in range(3) if other != axis)))
    for group, number in enumerate(stroked.tolist(), len(marked) + 1):
        place = (slice(None),) * axis + (number,)
        groups[place][loose[place]] = min(group, MOST_GROUPS)
    return groups


def _checked(right: Collection[Plane], shape: tuple[int, ...]) -> tuple[Plane, ...]:
    """Each once, in order; InputError for one that is not in the volume."""
    for axis, number in right:
        if axis not in (0, 1, 2) or not 0 <= number < shape[axis]:
            raise InputError(
                f"Slice {number} along axis {axis} was marked as right, which the volume of {shape} (k, j, i) lacks.",
                "It cannot be learned from.",
                "Load the segmentation's own volume again, and mark its slices.",
            )
    return tuple(sorted({Plane(int(axis), int(number)) for axis, number in right}))


def _label_map(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 3 or array.dtype.kind not in "bui" or (array.size and not 0 <= array.min() <= array.max() <= 255):
        raise InputError(
            f"{name} is no label map: axes (k, j, i) and whole numbers from 0 to {HIGHEST_LABEL} were expected.",
            "Its structures cannot be told apart.",
            "Pass the label map of the volume.",
        )
    return array.astype(np.uint8, copy=False)


def _check_same_shape(first: tuple[int, ...], second: tuple[int, ...], names: str) -> None:
    if tuple(first) != tuple(second):
        raise InputError(
            f"{names} have different sizes, {tuple(first)} and {tuple(second)} voxels (k, j, i).",
            "The volume was changed meanwhile, or something was drawn outside the image.",
            "Crop the segmentation to the image, or segment it again; what was drawn stays as it is.",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
