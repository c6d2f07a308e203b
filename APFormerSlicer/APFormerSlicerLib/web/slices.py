"""Which slices of a volume a slice view goes through, and where along its slider they lie."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from apformer.errors import InputError

from ..scene.geometry import matrix_array
from ..scene.slices import ijk_to_world
from ..scene.volumes import shape_kji

_TILT = 0.5  # of a slice's thickness, over the whole slice: beyond it a view shows parts of several slices
_MOST_MARKS = 400  # of one strip; a screen has no room for more


@dataclass(frozen=True)
class ViewSlices:
    """The slices of a volume that a view goes through one by one.

    Attributes:
        axis: of the volume's array, (k, j, i), that they are perpendicular to.
        count: how many there are.
        first: where the view shows slice 0, mm along its slider. step: from one slice to the next, mm; negative where
            the slider counts the other way.
    """

    axis: int
    count: int
    first: float
    step: float

    @staticmethod
    def of(slice_node: Any, volume_node: Any) -> ViewSlices | None:
        """None where there is no image, or the view cuts through its slices at an angle."""
        if volume_node is None or volume_node.GetImageData() is None:
            return None
        try:
            to_world = ijk_to_world(volume_node)
        except InputError:  # a transform that bends space: no slice is plane
            return None
        return ViewSlices.across(matrix_array(slice_node.GetSliceToRAS())[:3, 2], to_world, shape_kji(volume_node))

    @staticmethod
    def across(normal: np.ndarray, ijk_to_world: np.ndarray, shape: Sequence[int]) -> ViewSlices | None:
        """Those of an array of the shape, (k, j, i), for a view along `normal`, of length 1."""
        steps = normal @ ijk_to_world[:3, :3]  # mm along the view per voxel along i, j, k
        along = int(np.abs(steps).argmax())
        tilts = np.abs(steps) * np.array(shape[::-1])
        tilts[along] = 0.0
        if tilts.sum() > _TILT * abs(steps[along]):
            return None
        axis = 2 - along
        return ViewSlices(axis, shape[axis], float(normal @ ijk_to_world[:3, 3]), float(steps[along]))

    def number(self, offset: float) -> int:
        """Of the slice at that place of the slider, the nearest where it is beyond the ends."""
        return min(max(round((offset - self.first) / self.step), 0), self.count - 1)

    def offset(self, number: int) -> float:
        """Where the view shows that slice, mm along its slider."""
        return self.first + number * self.step

    def marks(self, kinds: Mapping[str, Collection[int]]) -> list[dict[str, Any]]:
        """What a strip along the slider draws: for each kind its runs of neighbouring slices, in the order of `kinds`.

        Each has "kind", "left" and "width" in shares of the strip, "from", the number of its leftmost slice, "count",
        and "step", to the number of the next one to the right, 1 or -1.
        """
        found = [self._mark(kind, *run) for kind, numbers in kinds.items() for run in _runs(numbers)]
        return found[-_MOST_MARKS:]

    def _mark(self, kind: str, low: int, high: int) -> dict[str, Any]:
        gaps = max(self.count - 1, 1)  # the slider's ends are the middles of the outermost slices
        left, right = max(low - 0.5, 0.0) / gaps, min(high + 0.5, gaps) / gaps
        step = 1 if self.step > 0 else -1
        return {
            "kind": kind,
            "left": left if step > 0 else 1.0 - right,
            "width": right - left,
            "from": low if step > 0 else high,
            "count": high - low + 1,
            "step": step,
        }


def _runs(numbers: Collection[int]) -> list[tuple[int, int]]:
    """Neighbouring numbers as (lowest, highest)."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs
