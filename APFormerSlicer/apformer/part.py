"""A box cut out of an array around what is not 0: a result that is mostly background, without the background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError

_Three = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Part:
    """What lies in the box; around it, everything is 0.

    Attributes:
        array: (k, j, i), of the box; empty where everything is 0.
        start_kji: the index of its first voxel in the whole.
        shape_kji: of the whole.

    Raises:
        InputError: the box is not inside the whole.
    """

    array: np.ndarray
    start_kji: _Three
    shape_kji: _Three

    def __post_init__(self) -> None:
        sides = zip(self.start_kji, self.array.shape, self.shape_kji, strict=False)
        if self.array.ndim != 3 or not all(start >= 0 and start + size <= whole for start, size, whole in sides):
            raise InputError(
                f"A part of shape {self.array.shape} at {self.start_kji} is not inside a grid of {self.shape_kji} "
                "(k, j, i).",
                "Its voxels would lie in the wrong place.",
                "Make the result again; if it happens again, report it.",
            )

    @staticmethod
    def of(whole: np.ndarray) -> Part:
        """The smallest box around what is not 0 in `whole`, (k, j, i), as a view."""
        shape = (whole.shape[0], whole.shape[1], whole.shape[2])
        box = _where_not_zero(whole)
        if box is None:
            return Part(whole[:0, :0, :0], (0, 0, 0), shape)
        k, j, i = box
        return Part(whole[k, j, i], (k.start, j.start, i.start), shape)

    @property
    def box_kji(self) -> tuple[slice, slice, slice]:
        """Where the part is in the whole."""
        k, j, i = (slice(start, start + size) for start, size in zip(self.start_kji, self.array.shape, strict=True))
        return k, j, i

    def whole(self) -> np.ndarray:
        """The array with its background, a copy."""
        array = np.zeros(self.shape_kji, self.array.dtype)
        array[self.box_kji] = self.array
        return array

    def place(self) -> dict[str, list[int]]:
        """Where it is, ready for JSON; `at` reads it."""
        return {"start_kji": list(self.start_kji), "shape_kji": list(self.shape_kji)}

    @staticmethod
    def at(array: np.ndarray, place: Mapping[str, Any]) -> Part:
        """`array` where `place` says it is.

        Raises:
            InputError: it cannot be there.
        """
        try:
            k, j, i = (int(index) for index in place["start_kji"])
            depth, rows, columns = (int(length) for length in place["shape_kji"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "A result does not say where it lies.", "It cannot be placed on the image.", "Make the result again."
            ) from error
        return Part(array, (k, j, i), (depth, rows, columns))


def _where_not_zero(whole: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Slice by slice: each is looked at while it is in the processor's cache, so memory is read once."""
    filled = []
    rows, columns = np.zeros(whole.shape[1], bool), np.zeros(whole.shape[2], bool)
    for k, plane in enumerate(whole):
        inside = plane.any(axis=1)
        if inside.any():
            filled.append(k)
            rows |= inside
            columns |= plane.any(axis=0)
    if not filled:
        return None
    j, i = np.flatnonzero(rows), np.flatnonzero(columns)
    ends = (filled[0], filled[-1]), (int(j[0]), int(j[-1])), (int(i[0]), int(i[-1]))
    (k0, k1), (j0, j1), (i0, i1) = ends
    return slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1)
