"""The slices of a volume in the slice views: which one is shown, and going to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from .geometry import ijk_to_local, local_to_world, matrix_array
from .volumes import first_ijk, shape_kji

PLANES = ("sagittal", "coronal", "axial")  # across R, A, S
_ALONG = 0.7  # cosine between a view's normal and an axis of the volume, from which on the view shows its slices


def planes_of(volume_node: Any) -> tuple[str, str, str]:
    """What the slices across k, j and i of the volume's array are: "axial", "coronal" or "sagittal", the nearest."""
    directions = _directions(volume_node)
    k, j, i = (PLANES[int(np.argmax(np.abs(directions[:, axis])))] for axis in (2, 1, 0))
    return k, j, i


def thickest(volume_node: Any) -> int:
    """The axis, 0, 1, 2 for k, j, i, across which slices are the thickest: that in which it was acquired."""
    i, j, k = volume_node.GetSpacing()
    return int(np.argmax(np.array([k, j, i]) > max(i, j, k) - 1e-6))


def shown_slice(volume_node: Any, axis: int) -> int | None:
    """The number of the slice across that axis which its slice view shows; None where it shows none."""
    view = _view(volume_node, axis)
    if view is None:
        return None
    middle = matrix_array(view.GetSliceToRAS())[:, 3]
    number = round(float(np.linalg.solve(ijk_to_world(volume_node), middle)[2 - axis]))
    return number if 0 <= number < shape_kji(volume_node)[axis] else None


def go_to_slice(volume_node: Any, axis: int, number: int) -> bool:
    """Show that slice in the view of its plane; the view stays where it is otherwise. False when there is no view."""
    view = _view(volume_node, axis)
    if view is None:
        return False
    matrix = ijk_to_world(volume_node)
    ijk = np.linalg.solve(matrix, matrix_array(view.GetSliceToRAS())[:, 3])
    ijk[2 - axis] = number
    r, a, s, _ = (matrix @ ijk).tolist()
    view.JumpSliceByOffsetting(r, a, s)
    return True


def slice_views(scene: Any) -> list[Any]:
    """All vtkMRMLSliceNode of the scene."""
    kind = "vtkMRMLSliceNode"
    return [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]


def _view(volume_node: Any, axis: int) -> Any:
    """The slice view across the axis, of several one that the layout shows."""
    direction = _directions(volume_node)[:, 2 - axis]
    best, found = _ALONG, None
    for view in slice_views(volume_node.GetScene()):
        along = abs(float(matrix_array(view.GetSliceToRAS())[:3, 2] @ direction)) + 1e-3 * view.IsMappedInLayout()
        if along > best:
            best, found = along, view
    return found


def _directions(volume_node: Any) -> np.ndarray:
    """Unit vectors along i, j, k, as columns."""
    columns = ijk_to_world(volume_node)[:3, :3]
    unit: np.ndarray = columns / np.linalg.norm(columns, axis=0)
    return unit


def ijk_to_world(volume_node: Any) -> np.ndarray:
    """From indices of the volume's array, which begin at 0. Raises InputError below a transform that bends space."""
    matrix = ijk_to_local(volume_node)
    matrix[:3, 3] += matrix[:3, :3] @ np.array(first_ijk(volume_node), dtype=np.float64)
    world: np.ndarray = local_to_world(volume_node) @ matrix
    return world
