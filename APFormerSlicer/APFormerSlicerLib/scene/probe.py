"""What lies at a place of the patient: a voxel's value, and the segments there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import vtk

from .geometry import local_to_world, matrix_array
from .images import array_of
from .segments import binary_labelmap
from .slices import ijk_to_world
from .volumes import shape_kji


def value_at(volume_node: Any, ras: Sequence[float]) -> float | tuple[float, ...] | None:
    """Of the voxel that the place, RAS in mm, lies in: a number, or red, green and blue; None outside of the image.

    Raises:
        InputError: the volume is below a transform that bends space.
    """
    i, j, k = _voxel(ijk_to_world(volume_node), ras)
    if not all(0 <= index < count for index, count in zip((k, j, i), shape_kji(volume_node), strict=True)):
        return None
    value = array_of(volume_node.GetImageData())[k, j, i]
    return tuple(float(one) for one in value) if np.ndim(value) else float(value)


def segments_at(segmentation_node: Any, ras: Sequence[float]) -> list[str]:
    """The names of the segments that are shown and cover the place, RAS in mm."""
    segmentation, display = segmentation_node.GetSegmentation(), segmentation_node.GetDisplayNode()
    to_world = local_to_world(segmentation_node)
    found = []
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        is_shown = display.GetVisibility() and display.GetSegmentVisibility(segmentation.GetNthSegmentID(number))
        if is_shown and _covers(segment, to_world, ras):
            found.append(segment.GetName())
    return found


def _covers(segment: Any, to_world: np.ndarray, ras: Sequence[float]) -> bool:
    layer = segment.GetRepresentation(binary_labelmap())
    if layer is None:
        return False
    matrix = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(matrix)
    i, j, k = _voxel(to_world @ matrix_array(matrix), ras)
    first_i, last_i, first_j, last_j, first_k, last_k = layer.GetExtent()
    if not (first_i <= i <= last_i and first_j <= j <= last_j and first_k <= k <= last_k):
        return False
    value = array_of(layer)[k - first_k, j - first_j, i - first_i]
    return int(value) == int(segment.GetLabelValue())


def _voxel(ijk_to_ras: np.ndarray, ras: Sequence[float]) -> tuple[int, int, int]:
    i, j, k = np.floor(np.linalg.solve(ijk_to_ras, [*ras, 1.0])[:3] + 0.5).astype(int).tolist()
    return i, j, k
