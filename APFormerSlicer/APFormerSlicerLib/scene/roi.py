"""A region of interest that the user drew, as a box of voxels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from apformer.errors import InputError
from apformer.volume import Roi, Volume, check_geometry

from .geometry import local_to_world, matrix_array

_PARALLEL = 1e-3  # radians, about; at the end of a box of 500 voxels that is half a voxel


def to_roi(roi_node: Any, volume: Volume) -> tuple[Roi, tuple[str, ...]]:
    """The voxels whose centres are in the box, clipped to the volume, and what the user must be told.

    A box that is turned against the volume's axes becomes the smallest box of voxels that encloses it.

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
    axes = np.abs(box_to_ijk[:3, :3]) / np.linalg.norm(box_to_ijk[:3, :3], axis=0)
    if np.all(np.sort(axes, axis=0)[1] < _PARALLEL):
        return roi, ()
    return roi, (f"{name} is turned against the image; the box of voxels around it was segmented.",)


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
