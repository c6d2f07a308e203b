"""Segments as a label map on the grid of a volume: what a person corrected, for the engine to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from apformer.bundles.labels import HIGHEST_LABEL, Label
from apformer.errors import InputError
from apformer.volume import Volume

from .geometry import ijk_to_local, local_to_local, matrix_array
from .images import array_of
from .nearest import Box, nearest
from .segments import binary_labelmap, segment_ids
from .volumes import check_volume_node, first_ijk, shape_kji, to_volume

_SAME_VOXEL = 1e-3  # of a voxel; geometry that went through a file's text stays within


@dataclass(frozen=True)
class _Piece:
    """Where `voxels`, (k, j, i), have `value`, a segment is; `box` is where they lie on the grid of the volume."""

    label: Label
    voxels: np.ndarray
    value: int
    box: Box

    def read(self, _shape_kji: tuple[int, ...]) -> tuple[Box, np.ndarray]:
        """Where it lies on a grid of that shape, and in which voxels there."""
        return self.box, self.voxels == self.value


@dataclass(frozen=True)
class _OffGrid:
    """The same on a grid of its own; `to_indices`: from (i, j, k) of the volume's array to those of `voxels`."""

    label: Label
    voxels: np.ndarray
    value: int
    to_indices: np.ndarray

    def read(self, shape_kji: tuple[int, ...]) -> tuple[Box, np.ndarray]:
        return nearest(self.voxels, self.value, self.to_indices, shape_kji)


@dataclass(frozen=True)
class Pieces:
    """Segments as they lie on the grid of a volume, not put together yet: views of the scene's memory.

    Taking them up costs no pass over voxels, save below a transform that bends space. `compose` may run in another
    thread; it is to be repeated when `stamp` was another one afterwards: the segments were edited meanwhile.
    """

    name: str
    shape_kji: tuple[int, int, int]
    pieces: tuple[_Piece | _OffGrid, ...]

    def compose(self) -> np.ndarray:
        """The label map: uint8, (k, j, i).

        Raises:
            InputError: two of the segments overlap.
        """
        whole = np.zeros(self.shape_kji, np.min_scalar_type(HIGHEST_LABEL))
        for piece in self.pieces:
            box, inside = piece.read(self.shape_kji)
            self._check_overlap(whole[box], inside, piece.label)
            whole[box][inside] = piece.label.value
        return whole

    def masks(self) -> Iterator[tuple[Label, np.ndarray]]:
        """Each segment that lies within the volume by itself: bool (k, j, i). They may overlap."""
        for piece in self.pieces:
            whole = np.zeros(self.shape_kji, bool)
            box, inside = piece.read(self.shape_kji)
            whole[box] = inside
            yield piece.label, whole

    def _check_overlap(self, target: np.ndarray, inside: np.ndarray, label: Label) -> None:
        covered = target[inside]
        overlap = int(np.count_nonzero(covered))
        if not overlap:
            return
        names = [piece.label.name for piece in self.pieces if (covered == piece.label.value).any()]
        raise InputError(
            f"The segment {label.name} overlaps {' and '.join(names)} in {overlap} voxels.",
            "A label map holds one label per voxel.",
            "In the Segment Editor subtract one from the other (Logical operators), or paint with overlap turned off "
            "(Masking, Modify other segments: Overwrite all).",
        )


def to_label_map(segmentation_node: Any, volume_node: Any, labels: Sequence[Label]) -> Volume:
    """The segments that have the labels' names, with the labels' values: uint8, (k, j, i), on the grid of the volume.

    Raises:
        InputError: as `take_pieces`; two of the segments overlap; and as `to_volume` does.
    """
    whole = take_pieces(segmentation_node, volume_node, labels).compose()
    volume = to_volume(volume_node)
    return Volume(whole, volume.ijk_to_ras, source=volume.source)


def check_labels(segmentation_node: Any, volume_node: Any, labels: Sequence[Label]) -> dict[str, str]:
    """Label name -> segment ID, for a label map of the labels that have a segment; no voxel is looked at.

    Raises:
        InputError: no segment has the name of a label; they are surfaces only; the volume cannot be used.
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
    return found


def take_pieces(segmentation_node: Any, volume_node: Any, labels: Sequence[Label]) -> Pieces:
    """The segments that have the labels' names.

    Segments on another grid are resampled to the nearest voxel; transforms above the segmentation and the volume are
    applied. Other segments are left out. A label without a segment is absent.

    Raises:
        InputError: as `check_labels`.
    """
    found = check_labels(segmentation_node, volume_node, labels)
    pieces = [
        _piece(segmentation_node, volume_node, label, found[label.name]) for label in labels if label.name in found
    ]
    return Pieces(segmentation_node.GetName(), shape_kji(volume_node), tuple(filter(None, pieces)))


def stamp(segmentation_node: Any) -> tuple[int, ...]:
    """Changes whenever voxels of a segment do."""
    segmentation = segmentation_node.GetSegmentation()
    layers = [segmentation.GetLayerDataObject(n, binary_labelmap()) for n in range(segmentation.GetNumberOfLayers())]
    return tuple(int(layer.GetMTime()) for layer in layers if layer is not None)


def _piece(segmentation_node: Any, volume_node: Any, label: Label, segment_id: str) -> _Piece | _OffGrid | None:
    """None for a segment of which nothing lies within the volume."""
    layer, value = _layer(segmentation_node, segment_id)
    try:
        to_volume = _to_volume(segmentation_node, layer, volume_node)
    except InputError:  # a transform that bends space
        return _Piece(label, _resampled(segmentation_node, volume_node, segment_id), 1, (slice(None),) * 3)
    if not layer.GetNumberOfPoints():
        return None
    shift = _shift(to_volume, layer)
    if shift is None:
        to_array = np.eye(4)
        to_array[:3, 3] = -np.array(layer.GetExtent()[::2])
        return _OffGrid(label, array_of(layer), value, to_array @ np.linalg.inv(to_volume))
    in_layer, in_volume = _common_part(layer, shift, shape_kji(volume_node))
    return _Piece(label, array_of(layer)[in_layer], value, in_volume)


def _layer(segmentation_node: Any, segment_id: str) -> tuple[Any, int]:
    """The image that holds the segment, and perhaps others, and the segment's value in it."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    return segment.GetRepresentation(binary_labelmap()), int(segment.GetLabelValue())


def _to_volume(segmentation_node: Any, layer: Any, volume_node: Any) -> np.ndarray:
    """From (i, j, k) of the layer, as its extent counts, to those of the volume's array, which begin at 0.

    Raises:
        InputError: there is a transform between them that bends space.
    """
    matrix = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(matrix)
    to_local = local_to_local(segmentation_node, volume_node) @ matrix_array(matrix)
    found: np.ndarray = np.linalg.solve(ijk_to_local(volume_node), to_local)
    found[:3, 3] -= first_ijk(volume_node)
    return found


def _shift(to_volume: np.ndarray, layer: Any) -> np.ndarray | None:
    """What to add to (i, j, k) of the layer to get those of the volume's array; None where the grids differ."""
    shift = np.rint(to_volume[:3, 3])
    turned = np.abs(to_volume[:3, :3] - np.eye(3)) @ np.abs(np.reshape(layer.GetExtent(), (3, 2))).max(axis=1)
    same_grid = np.all(turned + np.abs(to_volume[:3, 3] - shift) < _SAME_VOXEL)
    return shift.astype(int) if same_grid else None


def _common_part(layer: Any, shift: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the layer and an array of the shape, (k, j, i), overlap: in the array of each."""
    first, last = np.reshape(layer.GetExtent(), (3, 2)).T + shift
    start = np.clip(first, 0, shape[::-1])
    stop = np.maximum(np.clip(last + 1, 0, shape[::-1]), start)
    ends = list(zip(first.tolist(), start.tolist(), stop.tolist(), strict=True))[::-1]
    return tuple(slice(a - f, b - f) for f, a, b in ends), tuple(slice(a, b) for _, a, b in ends)


def _resampled(segmentation_node: Any, volume_node: Any, segment_id: str) -> np.ndarray:
    """The segment on the volume's grid, to the nearest voxel: 1 or 0, (k, j, i), by Slicer. Slow: seconds on a CT."""
    wanted = vtk.vtkStringArray()
    wanted.InsertNextValue(segment_id)
    merged = slicer.vtkOrientedImageData()
    slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
        segmentation_node, volume_node, wanted, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged
    )
    return (array_of(merged) != 0).view(np.uint8)
