"""Which image a segmentation that comes from a file was drawn on: told by what was kept with it, and by its geometry.

A mask of another patient that is laid over an image looks like one of it, and nothing in a `.seg.nrrd` file names the
patient. So a file that is written here says on each segment what its image was, by one-way digests: of its voxels and,
where it came as DICOM, of its frame of reference.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import slicer
import vtk

from .geometry import matrix_array
from .images import array_of
from .slices import ijk_to_world
from .tags import set_tag, tag
from .volumes import shape_kji

_IMAGE, _FRAME = "APFormer.Image", "APFormer.FrameOfReference"  # tags of a segment
_SAMPLE = 1 << 18  # voxels that are looked at: a whole CT would hold the views for half a second
_DIGITS = 24
_WITHIN = 0.1  # voxels, as apformer.grid.TOLERANCE_VOXELS
_OUTSIDE = 1.0  # voxel: rounding, and a slice more or less, put no structure outside its image


def keep_origin(segmentation_node: Any, volume_node: Any, frame_uid: str | None = None) -> None:
    """Keep on each segment which image it was drawn on. `frame_uid`: DICOM's Frame of Reference UID, if it is known."""
    image, frame = _image_digest(volume_node), _digest((frame_uid or "").encode())
    for segment in _segments(segmentation_node):
        set_tag(segment, _IMAGE, image)
        set_tag(segment, _FRAME, frame if frame_uid else "")


def is_of_another_frame(segmentation_node: Any, frame_uid: str | None) -> bool:
    """Whether it was drawn in another frame of reference, as far as that is known of both."""
    kept = _kept(segmentation_node, _FRAME)
    return bool(frame_uid and kept) and kept != {_digest(str(frame_uid).encode())}


def is_of_another_image(segmentation_node: Any, volume_node: Any) -> bool:
    """Whether it says that it was drawn on other voxels; False where it says nothing."""
    kept = _kept(segmentation_node, _IMAGE)
    return bool(kept) and kept != {_image_digest(volume_node)}


def lies_on_grid(segmentation_node: Any, volume_node: Any) -> bool:
    """Whether its voxels are those of the volume, to a tenth of one; a file may hold a part of the grid only."""
    return all(_on_grid(layer, volume_node) for layer in _layers(segmentation_node))


def reaches_outside(segmentation_node: Any, volume_node: Any) -> bool:
    """Whether a part of a segment lies outside of the volume."""
    return any(_outside(layer, volume_node) for layer in _layers(segmentation_node))


def _on_grid(layer: Any, volume_node: Any) -> bool:
    corners = _in_volume(layer, layer.GetExtent(), volume_node)
    if corners.size == 0:
        return True
    extent = np.array(layer.GetExtent())
    steps = np.ptp(corners, axis=0) - (extent[1::2] - extent[::2])  # not 0 where spacings or directions differ
    whole = np.abs(corners - np.round(corners))
    size = np.array(shape_kji(volume_node)[::-1])
    within = (corners > -_OUTSIDE).all() and (corners < size - 1 + _OUTSIDE).all()
    return bool(np.abs(steps).max() <= _WITHIN and whole.max() <= _WITHIN and within)


def _outside(layer: Any, volume_node: Any) -> bool:
    extent = [0, -1, 0, -1, 0, -1]
    if not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(layer, extent):
        return False  # nothing was drawn
    corners = _in_volume(layer, extent, volume_node)
    size = np.array(shape_kji(volume_node)[::-1])
    return bool((corners < -_OUTSIDE).any() or (corners > size - 1 + _OUTSIDE).any())


def _in_volume(layer: Any, extent: Any, volume_node: Any) -> np.ndarray:
    """The corners of a part of a layer as indices (i, j, k) of the volume: (8, 3), or (0, 3) where it is empty."""
    ends = np.reshape(extent, (3, 2))
    if (ends[:, 0] > ends[:, 1]).any():
        return np.zeros((0, 3))
    corners = np.array([(*ijk, 1.0) for ijk in itertools.product(*ends)])
    to_world = vtk.vtkMatrix4x4()
    layer.GetImageToWorldMatrix(to_world)
    found: np.ndarray = np.linalg.solve(ijk_to_world(volume_node), matrix_array(to_world) @ corners.T).T[:, :3]
    return found


def _image_digest(volume_node: Any) -> str:
    """Of the size and of voxels all over it, whatever type they are stored in."""
    voxels = array_of(volume_node.GetImageData()).reshape(-1)
    sample = np.ascontiguousarray(voxels[:: max(1, voxels.size // _SAMPLE)], dtype="<f4")
    return _digest(repr(shape_kji(volume_node)).encode() + sample.tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _kept(segmentation_node: Any, name: str) -> set[str]:
    return {text for segment in _segments(segmentation_node) if (text := tag(segment, name))}


def _segments(segmentation_node: Any) -> list[Any]:
    segmentation = segmentation_node.GetSegmentation()
    return [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]


def _layers(segmentation_node: Any) -> list[Any]:
    """The label maps that hold the segments, each once."""
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    found = (segment.GetRepresentation(name) for segment in _segments(segmentation_node))
    return list({id(layer): layer for layer in found if layer is not None}.values())
