"""A region of interest: as a box of voxels, fitted to an image or its segments, with handles to drag it by."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import vtk
from apformer.errors import InputError
from apformer.volume import Roi, Volume, check_geometry

from .geometry import local_to_world, matrix_array, one_update, vtk_matrix
from .segments import binary_labelmap
from .volumes import to_volume

MARGIN_MM = 10.0  # around segments: what a correction may add to an organ lies closer than that
_PARALLEL = 1e-3  # radians, about; at the end of a box of 500 voxels that is half a voxel


def to_roi(roi_node: Any, volume: Volume) -> tuple[Roi, tuple[str, ...]]:
    """The voxels whose centres are in the box, clipped to the volume, and what the user must be told.

    A box that is turned against the volume's axes becomes the smallest box of voxels that encloses it. One that is
    hidden counts as well.

    Args:
        roi_node: vtkMRMLMarkupsROINode, under any linear transforms.

    Raises:
        InputError: nothing drawn; outside the volume; a transform that is not linear.
    """
    name = roi_node.GetName()
    local_to_world(roi_node)  # refuses a transform that is not linear
    size = np.array(roi_node.GetSize(), dtype=np.float64)
    if not np.all(size > 0):
        raise InputError(
            f"The region of interest {name} is empty.",
            "There is nothing in it to segment.",
            "Draw a box around what is to be segmented.",
        )
    check_geometry(volume.ijk_to_ras, "The volume")
    box_to_world = matrix_array(roi_node.GetObjectToWorldMatrix())
    box_to_ijk = np.linalg.solve(volume.ijk_to_ras, box_to_world)
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * size @ box_to_ijk[:3, :3].T + box_to_ijk[:3, 3]
    roi = _voxels(corners.min(axis=0), corners.max(axis=0), volume, name)
    notes = []
    axes = np.abs(box_to_ijk[:3, :3]) / np.linalg.norm(box_to_ijk[:3, :3], axis=0)
    if not np.all(np.sort(axes, axis=0)[1] < _PARALLEL):
        notes.append(f"{name} is turned against the image; the box of voxels around it was segmented.")
    if roi_node.GetDisplayNode() is not None and not roi_node.GetDisplayVisibility():
        notes.append(f"{name} is hidden, and limits what is segmented all the same.")
    return roi, tuple(notes)


def is_empty(roi_node: Any) -> bool:
    """Whether nothing was drawn yet."""
    return not all(side > 0 for side in roi_node.GetSize())


def fit_roi(roi_node: Any, volume_node: Any, segmentation_node: Any = None, margin_mm: float = MARGIN_MM) -> None:
    """Make the box enclose the segments with a margin, within the volume; all of the volume where there are none.

    The box has the volume's axes, so that it is a box of voxels, and is not filled, because it may cover all of it.

    Args:
        roi_node: vtkMRMLMarkupsROINode. volume_node: whose axes count. segmentation_node: None for no segments.

    Raises:
        InputError: no volume, or no voxels; sheared axes; a transform that is not linear.
    """
    volume = to_volume(volume_node)
    check_geometry(volume.ijk_to_ras, volume_node.GetName())
    k, j, i = volume.spatial_shape
    whole = np.array([[-0.5] * 3, [i - 0.5, j - 0.5, k - 0.5]])  # the faces of the outermost voxels, ijk
    bounds = None if segmentation_node is None else _bounds_ijk(segmentation_node, volume)
    if bounds is not None:
        margin = margin_mm / np.array(volume.spacing_ijk)
        bounds = np.clip(bounds + np.array([-margin, margin]), *whole)
    if bounds is None or not np.all(bounds[1] > bounds[0]):  # no segments, or outside of this volume
        bounds = whole
    ijk_to_node = np.linalg.solve(local_to_world(roi_node), volume.ijk_to_ras)
    corners = _corners(bounds) @ ijk_to_node[:3, :3].T + ijk_to_node[:3, 3]
    axes = _closest_axes(ijk_to_node[:3, :3])
    along = corners @ axes
    low, high = along.min(axis=0), along.max(axis=0)
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = axes, axes @ ((low + high) / 2)
    with one_update(roi_node):
        roi_node.SetROIType(roi_node.ROITypeBox)
        roi_node.SetAndObserveObjectToNodeMatrix(vtk_matrix(place))
        roi_node.SetSize(*(high - low).tolist())
    roi_node.CreateDefaultDisplayNodes()
    roi_node.GetDisplayNode().SetFillVisibility(False)


def show_handles(roi_node: Any, shown: bool = True) -> None:
    """Show the box with what it can be dragged by, or take these handles off again: the box then stays where it is."""
    if shown:
        roi_node.CreateDefaultDisplayNodes()
        roi_node.SetDisplayVisibility(True)
    if roi_node.GetDisplayNode() is not None:
        roi_node.GetDisplayNode().SetHandlesInteractive(shown)


def _bounds_ijk(segmentation_node: Any, volume: Volume) -> np.ndarray | None:
    """Lowest and highest index of the volume that segments reach, (2, 3); None where there are none.

    As far as their layers reach, which Slicer and `write_segments` cut to what is not empty; no voxel is looked at.
    """
    segmentation = segmentation_node.GetSegmentation()
    local_to_ijk = np.linalg.solve(volume.ijk_to_ras, local_to_world(segmentation_node))
    found = []
    for number in range(segmentation.GetNumberOfSegments()):
        image = segmentation.GetNthSegment(number).GetRepresentation(binary_labelmap())
        if image is None or image.GetNumberOfPoints() == 0:
            continue
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        low, high = np.array(image.GetExtent(), dtype=np.float64).reshape(3, 2).T
        to_ijk = local_to_ijk @ matrix_array(matrix)
        found.append(_corners(np.array([low - 0.5, high + 0.5])) @ to_ijk[:3, :3].T + to_ijk[:3, 3])
    if not found:
        return None
    points = np.concatenate(found)
    return np.array([points.min(axis=0), points.max(axis=0)])


def _corners(bounds: np.ndarray) -> np.ndarray:
    """The eight corners, (8, 3), of a box from bounds[0] to bounds[1]."""
    return np.array(list(itertools.product(*bounds.T)))


def _closest_axes(matrix: np.ndarray) -> np.ndarray:
    """The rotation whose columns are closest to the directions of those of `matrix`, of which headers keep some digits;
    a mirrored axis is turned round, which leaves a box what it is."""
    left, _, right = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    axes: np.ndarray = left @ right
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    return axes


def as_text(roi: Roi) -> str:
    """As the worker's request and the command line write it: i0:i1,j0:j1,k0:k1."""
    return ",".join(f"{start}:{stop}" for start, stop in zip(roi.start_ijk, roi.stop_ijk, strict=True))


def _voxels(low: np.ndarray, high: np.ndarray, volume: Volume, name: str) -> Roi:
    """The voxels with centres from `low` to `high`, which are indices."""
    in_voxels = Volume(volume.array, np.eye(4))  # on this grid, indices are the engine's RAS bounds
    bounds = [bound for ends in zip(low.tolist(), high.tolist(), strict=True) for bound in ends]
    try:
        return Roi.from_ras_bounds(bounds, in_voxels)
    except InputError as error:
        raise InputError(
            f"The region of interest {name} lies outside the volume.",
            "There are no voxels in it to segment.",
            "Move the box onto the image, or turn the region of interest off.",
        ) from error
