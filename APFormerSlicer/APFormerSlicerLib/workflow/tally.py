"""How many voxels each segment has, counted once for every change, and large ones not on the main thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..scene.images import array_of
from .hosts import Worker

AT_ONCE = 4_000_000  # voxels of a layer that are counted while the user waits: 10 to 20 ms
_MOST = 200  # layers that are remembered

# Time of a layer's last change, which no two VTK objects share -> label value -> voxels.
_counts: dict[int, Mapping[int, int]] = {}


class Tally:
    """Counts for tables.

    Args:
        worker: does the counting of large layers aside.
        counted: called with the segmentation when counts that were missing are there.
    """

    def __init__(self, worker: Worker, counted: Callable[[Any], None]) -> None:
        self._worker, self._counted = worker, counted
        self._pending: set[int] = set()

    def volume_ml(self, segmentation_node: Any, segment_id: str) -> float | None:
        """Of a segment, in mL; None while it is counted. A transform above the segmentation is not applied, as in
        Slicer's Segment Statistics."""
        layer = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        if layer is None or layer.GetNumberOfPoints() == 0:
            return 0.0
        counts = self._of(segmentation_node, layer)
        if counts is None:
            return None
        value = int(segmentation_node.GetSegmentation().GetSegment(segment_id).GetLabelValue())
        return counts.get(value, 0) * float(np.prod(np.abs(layer.GetSpacing()))) / 1000.0

    def _of(self, segmentation_node: Any, layer: Any) -> Mapping[int, int] | None:
        changed = int(layer.GetMTime())
        if changed in _counts or changed in self._pending:
            return _counts.get(changed)
        array = array_of(layer)
        if array.size <= AT_ONCE:
            _remember(changed, count(array))
            return _counts[changed]
        self._pending.add(changed)

        def counted(counts: Any, error: BaseException | None) -> None:
            self._pending.discard(changed)
            if error is None and int(layer.GetMTime()) == changed:  # else it was edited meanwhile, and is asked again
                _remember(changed, counts)
            if segmentation_node.GetScene() is not None:
                self._counted(segmentation_node)

        self._worker.aside(lambda: count(array), counted)
        return _counts.get(changed)


def prime_counts(
    segmentation_node: Any, segment_ids: Mapping[str, str], structures: Mapping[str, Mapping[str, Any]]
) -> None:
    """Take the worker's counts of a result that was just written, whose segments share one layer."""
    segmentation = segmentation_node.GetSegmentation()
    found: dict[int, int] = {}
    for name, segment_id in segment_ids.items():
        if name not in structures:
            return
        found[int(segmentation.GetSegment(segment_id).GetLabelValue())] = int(structures[name]["voxels"])
    for segment_id in segment_ids.values():
        layer = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        if layer is not None:
            _remember(int(layer.GetMTime()), found)


def count(array: np.ndarray) -> dict[int, int]:
    """Value -> voxels that have it, background left out; whole numbers of any type, (k, j, i)."""
    found: dict[int, int] = {}
    for plane in array:  # slice by slice: Python's other threads wait no longer than for one
        values, counts = np.unique(plane, return_counts=True) if plane.dtype != np.uint8 else _of_bytes(plane)
        for value, voxels in zip(values.tolist(), counts.tolist(), strict=True):
            if value:
                found[int(value)] = found.get(int(value), 0) + int(voxels)
    return found


def _of_bytes(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(plane.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    return values, counts[values]


def _remember(changed: int, counts: Mapping[int, int]) -> None:
    if len(_counts) >= _MOST:
        _counts.clear()
    _counts[changed] = counts
