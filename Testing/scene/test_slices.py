"""Slices of a volume in the slice views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from APFormerSlicerLib.scene.geometry import vtk_matrix
from APFormerSlicerLib.scene.slices import go_to_slice, planes_of, shown_slice, thickest
from headless import VolumeMaker

ORIENTATIONS = ("Axial", "Sagittal", "Coronal")


def add_views(scene: Any) -> dict[str, Any]:
    """The slice views as Slicer's layouts have them."""
    views = {}
    for name in ORIENTATIONS:
        view = scene.AddNewNodeByClass("vtkMRMLSliceNode", name)
        view.SetLayoutName(name)
        view.SetOrientation(name)
        views[name] = view
    return views


@pytest.fixture
def a_volume(make_volume_node: VolumeMaker) -> Any:
    """10 x 8 x 6 voxels (k, j, i) of 4 x 2 x 1 mm, RAS mirrored in two axes as NIfTI files are."""
    node = make_volume_node(np.zeros((10, 8, 6), np.int16))
    node.SetIJKToRASMatrix(vtk_matrix(np.diag([-1.0, -2.0, 4.0, 1.0])))
    return node


def test_planes_are_named_by_what_the_slices_lie_across(a_volume: Any) -> None:
    assert planes_of(a_volume) == ("axial", "coronal", "sagittal") and thickest(a_volume) == 0
    turned = np.array([[0, 0, 3.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])  # acquired sagittally
    a_volume.SetIJKToRASMatrix(vtk_matrix(turned))
    assert planes_of(a_volume) == ("sagittal", "axial", "coronal") and thickest(a_volume) == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_view_of_a_plane_goes_to_a_slice_and_tells_it(a_volume: Any, axis: int) -> None:
    add_views(a_volume.GetScene())
    for number in (0, 3, a_volume.GetImageData().GetDimensions()[2 - axis] - 1):
        assert go_to_slice(a_volume, axis, number) and shown_slice(a_volume, axis) == number


def test_other_views_stay_where_they_are(a_volume: Any) -> None:
    add_views(a_volume.GetScene())
    go_to_slice(a_volume, 1, 2)
    go_to_slice(a_volume, 0, 7)
    assert shown_slice(a_volume, 1) == 2


def test_transforms_above_the_volume_count(a_volume: Any) -> None:
    add_views(a_volume.GetScene())
    transform = a_volume.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved = np.eye(4)
    moved[2, 3] = 8.0
    transform.SetMatrixTransformToParent(vtk_matrix(moved))
    a_volume.SetAndObserveTransformNodeID(transform.GetID())
    views = a_volume.GetScene().GetNthNodeByClass(0, "vtkMRMLSliceNode")
    go_to_slice(a_volume, 0, 0)
    assert views.GetSliceToRAS().GetElement(2, 3) == pytest.approx(8.0)


def test_outside_of_the_volume_and_without_views_no_slice_is_shown(a_volume: Any) -> None:
    assert shown_slice(a_volume, 0) is None and not go_to_slice(a_volume, 0, 1)
    view = add_views(a_volume.GetScene())["Axial"]
    view.JumpSliceByOffsetting(0.0, 0.0, 400.0)
    assert shown_slice(a_volume, 0) is None
