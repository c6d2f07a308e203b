"""Where nodes lie: matrices between MRML and the engine, and the parent transforms above a node.

Matrices are 4x4, float64, millimetres, RAS. "Local" is a node's own frame, below its parent transform; "world" is the
patient, above all transforms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import vtk
from apformer.errors import InputError


def matrix_array(matrix: Any) -> np.ndarray:
    """The numbers of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)], dtype=np.float64)


def vtk_matrix(array: np.ndarray) -> Any:
    """A vtkMatrix4x4 with the numbers of `array`."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel().tolist())
    return matrix


def ijk_to_local(volume_node: Any) -> np.ndarray:
    """From the indices of the volume's image, which need not begin at 0, to its local frame."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return matrix_array(matrix)


def local_to_world(node: Any) -> np.ndarray:
    """The transforms above `node`, as one matrix; the identity when there are none.

    Raises:
        InputError: one of them is not linear.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise InputError(
            f"{node.GetName()} is under {parent.GetName()}, a transform that bends space.",
            "Voxels under it are no longer boxes, so they have no spacing that a model could use.",
            "Harden the transform on it (Data module, right click, Harden transform), or move it out of the transform.",
        )
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return matrix_array(matrix)


def local_to_local(node: Any, other: Any) -> np.ndarray:
    """From the local frame of `node` to that of `other`; exactly the identity where they share a parent transform.

    Raises:
        InputError: the parents differ, and a transform above either is not linear.
    """
    if node.GetParentTransformNode() is other.GetParentTransformNode():
        return np.eye(4)
    return np.linalg.solve(local_to_world(other), local_to_world(node))


@contextmanager
def one_update(node: Any) -> Iterator[None]:
    """Views learn of all changes to `node` in the block together, when it ends."""
    was_modifying = node.StartModify()
    try:
        yield
    finally:
        node.EndModify(was_modifying)
