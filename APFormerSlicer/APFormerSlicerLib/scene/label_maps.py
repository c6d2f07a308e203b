"""Segments as a label map on the grid of a volume: what a person corrected, for the engine to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from apformer.bundles.labels import HIGHEST_LABEL, Label
from apformer.errors import InputError
from apformer.volume import Volume

from .geometry import ijk_to_local, local_to_local, matrix_array
from .images import array_of
from .segments import binary_labelmap, segment_ids
from .volumes import check_volume_node, first_ijk, shape_kji, to_volume

_SAME_VOXEL = 1e-3  # of a voxel; geometry that went through a file's text stays within


def to_label_map(segmentation_node: Any, volume_node: Any, labels: Sequence[Label]) -> Volume:
    """The segments that have the labels' names, with the labels' values: uint8, (k, j, i), on the grid of the volume.

    Segments on another grid are resampled to the nearest voxel; transforms above the segmentation and the volume are
    applied. Other segments are left out. A label without a segment is absent from the map.

    Raises:
        InputError: no segment has the name of a label; two of these segments overlap; they are surfaces only; and as
            `to_volume` does.
    """
    check_volume_node(volume_node)
    found = segment_ids(segmentation_node, labels)
    if not found:
        raise InputError(
            f"{segmentation_node.GetName()} has no segment named {' or '.join(label.name for label in labels)}.",
            "It is not known which of its segments the model's labels are.",
            "Rename the segments to the names of the labels.",
        )
    if not segmentation_node.GetSegmentation().ContainsRepresentation(binary_labelmap()):
        raise InputError(
            f"{segmentation_node.GetName()} has surfaces, but no voxels.",
            "A label map is made of voxels.",
            "Create them from the surfaces (Segmentations module, Representations, Binary labelmap, Create).",
        )
    whole = np.zeros(shape_kji(volume_node), np.min_scalar_type(HIGHEST_LABEL))
    for label in labels:
        if label.name in found:
            mask = _mask(segmentation_node, volume_node, found[label.name])
            _check_overlap(whole, mask, label, labels)
            whole[mask] = label.value
    volume = to_volume(volume_node)
    return Volume(whole, volume.ijk_to_ras, source=volume.source)


def _mask(segmentation_node: Any, volume_node: Any, segment_id: str) -> np.ndarray:
    """Boolean, (k, j, i)."""
    layer, value = _layer(segmentation_node, segment_id)
    shift = _shift(segmentation_node, layer, volume_node)
    if shift is None:
        return _resampled(segmentation_node, volume_node, segment_id)
    mask = np.zeros(shape_kji(volume_node), bool)
    if layer.GetNumberOfPoints():
        in_layer, in_volume = _common_part(layer, shift, mask.shape)
        mask[in_volume] = array_of(layer)[in_layer] == value
    return mask


def _layer(segmentation_node: Any, segment_id: str) -> tuple[Any, int]:
    """The image that holds the segment, and perhaps others, and the segment's value in it."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    return segment.GetRepresentation(binary_labelmap()), int(segment.GetLabelValue())


def _shift(segmentation_node: Any, layer: Any, volume_node: Any) -> np.ndarray | None:
    """What to add to (i, j, k) of the layer to get those of the volume's array; None where the grids differ."""
    matrix = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(matrix)
    try:
        to_volume = local_to_local(segmentation_node, volume_node) @ matrix_array(matrix)
    except InputError:  # a transform that bends space
        return None
    between = np.linalg.solve(ijk_to_local(volume_node), to_volume)
    shift = np.rint(between[:3, 3])
    turned = np.abs(between[:3, :3] - np.eye(3)) @ np.abs(np.reshape(layer.GetExtent(), (3, 2))).max(axis=1)
    same_grid = np.all(turned + np.abs(between[:3, 3] - shift) < _SAME_VOXEL)
    return (shift - first_ijk(volume_node)).astype(int) if same_grid else None


def _common_part(layer: Any, shift: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the layer and an array of the shape, (k, j, i), overlap: in the array of each."""
    first, last = np.reshape(layer.GetExtent(), (3, 2)).T + shift
    start = np.clip(first, 0, shape[::-1])
    stop = np.maximum(np.clip(last + 1, 0, shape[::-1]), start)
    ends = list(zip(first.tolist(), start.tolist(), stop.tolist(), strict=True))[::-1]
    return tuple(slice(a - f, b - f) for f, a, b in ends), tuple(slice(a, b) for _, a, b in ends)


def _resampled(segmentation_node: Any, volume_node: Any, segment_id: str) -> np.ndarray:
    """The segment on the volume's grid, to the nearest voxel: boolean, (k, j, i). Slow: seconds on a CT."""
    wanted = vtk.vtkStringArray()
    wanted.InsertNextValue(segment_id)
    merged = slicer.vtkOrientedImageData()
    slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
        segmentation_node, volume_node, wanted, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged
    )
    return array_of(merged) != 0


def _check_overlap(whole: np.ndarray, mask: np.ndarray, label: Label, labels: Sequence[Label]) -> None:
    covered = whole[mask]
    overlap = int(np.count_nonzero(covered))
    if not overlap:
        return
    names = [other.name for other in labels if (covered == other.value).any()]
    raise InputError(
        f"The segment {label.name} overlaps {' and '.join(names)} in {overlap} voxels.",
        "A label map holds one label per voxel.",
        "In the Segment Editor subtract one from the other (Logical operators), or paint with overlap turned off "
        "(Masking, Modify other segments: Overwrite all).",
    )
