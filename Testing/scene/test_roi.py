"""A box that the user drew becomes the voxels with their centres in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import vtk
from apformer.errors import InputError
from apformer.volume import Roi, Volume
from APFormerSlicerLib.scene import as_text, fit_roi, to_roi, to_volume
from APFormerSlicerLib.scene.geometry import vtk_matrix
from APFormerSlicerLib.scene.roi import is_empty, show_handles
from headless import VolumeMaker, draw, matrix_of


@pytest.fixture
def a_box(a_scene: Any) -> Any:
    """A region of interest of 4 x 2 x 6 mm around (10, 10, 10)."""
    node = a_scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    node.SetCenter(10, 10, 10)
    node.SetSize(4, 2, 6)
    return node


@pytest.fixture
def a_cube(make_volume_node: VolumeMaker) -> Any:
    """20 x 20 x 20 voxels of 1 mm, the first at the origin."""
    return make_volume_node(np.zeros((20, 20, 20), np.int16))


def test_a_straight_box_is_the_voxels_within_it(a_box: Any, a_cube: Any) -> None:
    roi, notes = to_roi(a_box, to_volume(a_cube))
    assert roi == Roi((8, 9, 7), (13, 12, 14))
    assert notes == ()


def test_the_worker_reads_the_same_box(a_box: Any, a_cube: Any) -> None:
    volume = to_volume(a_cube)
    roi, _ = to_roi(a_box, volume)
    assert as_text(roi) == "8:13,9:12,7:14"
    assert Roi.parse(as_text(roi), volume) == roi
    assert Roi.parse("8,12,9,11,7,13", volume) == roi  # its bounds in mm


def test_a_box_is_clipped_to_the_volume(a_box: Any, a_cube: Any) -> None:
    a_box.SetCenter(0, 10, 19)
    roi, _ = to_roi(a_box, to_volume(a_cube))
    assert roi == Roi((0, 9, 16), (3, 12, 20))


def test_a_box_between_two_centres_is_one_voxel(a_box: Any, a_cube: Any) -> None:
    a_box.SetCenter(10.4, 10, 10)
    a_box.SetSize(0.1, 2, 2)
    roi, _ = to_roi(a_box, to_volume(a_cube))
    assert (roi.start_ijk[0], roi.stop_ijk[0]) == (10, 11)


def test_a_turned_box_becomes_the_one_around_it_with_a_note(a_box: Any, a_cube: Any) -> None:
    turn = vtk.vtkTransform()
    turn.Translate(10, 10, 10)
    turn.RotateZ(45)
    a_box.SetCenter(0, 0, 0)
    a_box.SetAndObserveObjectToNodeMatrix(turn.GetMatrix())
    roi, notes = to_roi(a_box, to_volume(a_cube))
    half = (4 + 2) / 2 * np.sqrt(0.5)  # of the diagonal box
    assert roi.start_ijk[:2] == (int(np.ceil(10 - half)),) * 2
    assert roi.stop_ijk[:2] == (int(np.floor(10 + half)) + 1,) * 2
    assert notes == ("Box is turned against the image; the box of voxels around it was segmented.",)


def test_a_box_along_the_axes_of_an_oblique_volume_is_not_turned(
    a_box: Any, a_volume_node: Any, an_image: Volume
) -> None:
    volume = to_volume(a_volume_node)
    axes = volume.ijk_to_ras.copy()
    axes[:3, :3] /= volume.spacing_ijk
    axes[:3, 3] = (volume.ijk_to_ras @ [3, 2, 1, 1])[:3]
    a_box.SetCenter(0, 0, 0)
    a_box.SetAndObserveObjectToNodeMatrix(vtk_matrix(axes))
    a_box.SetSize(2.2 * 0.7, 0.2 * 0.9, 2.2 * 2.5)
    roi, notes = to_roi(a_box, volume)
    assert roi == Roi((2, 2, 0), (5, 3, 3))
    assert notes == ()


def test_transforms_above_the_box_and_the_volume_are_applied(a_box: Any, a_cube: Any, a_transform: Any) -> None:
    expected, _ = to_roi(a_box, to_volume(a_cube))
    a_cube.SetAndObserveTransformNodeID(a_transform.GetID())
    a_box.SetAndObserveTransformNodeID(a_transform.GetID())
    assert to_roi(a_box, to_volume(a_cube)) == (expected, ())


def test_a_box_outside_the_volume_is_refused(a_box: Any, a_cube: Any) -> None:
    a_box.SetCenter(100, 10, 10)
    with pytest.raises(InputError, match="Box lies outside the volume"):
        to_roi(a_box, to_volume(a_cube))


def test_a_box_that_was_not_drawn_is_refused(a_scene: Any, a_cube: Any) -> None:
    node = a_scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Nothing")
    with pytest.raises(InputError, match="Nothing is empty"):
        to_roi(node, to_volume(a_cube))


def test_a_box_under_a_warp_is_refused(a_box: Any, a_cube: Any, a_warp: Any) -> None:
    a_box.SetAndObserveTransformNodeID(a_warp.GetID())
    with pytest.raises(InputError, match="Box is under Warp"):
        to_roi(a_box, to_volume(a_cube))


# ------------------------------------------------------------------ fitting


@pytest.fixture
def a_new_box(a_scene: Any) -> Any:
    return a_scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "New")


def whole(volume: Volume) -> Roi:
    k, j, i = volume.spatial_shape
    return Roi((0, 0, 0), (i, j, k))


def test_a_new_box_is_fitted_to_all_voxels_of_an_oblique_volume(a_new_box: Any, a_volume_node: Any) -> None:
    volume = to_volume(a_volume_node)
    fit_roi(a_new_box, a_volume_node)
    assert to_roi(a_new_box, volume) == (whole(volume), ())  # not turned against it
    k, j, i = volume.spatial_shape
    assert sorted(a_new_box.GetSize()) == pytest.approx(sorted(np.array([i, j, k]) * volume.spacing_ijk))


@pytest.mark.parametrize("above", ["volume", "box", "both"])
def test_a_box_is_fitted_below_transforms(a_new_box: Any, a_volume_node: Any, a_transform: Any, above: str) -> None:
    if above in ("volume", "both"):
        a_volume_node.SetAndObserveTransformNodeID(a_transform.GetID())
    if above in ("box", "both"):
        a_new_box.SetAndObserveTransformNodeID(a_transform.GetID())
    fit_roi(a_new_box, a_volume_node)
    volume = to_volume(a_volume_node)
    assert to_roi(a_new_box, volume) == (whole(volume), ())


def test_a_mirrored_volume_is_enclosed_too(a_new_box: Any, make_volume_node: VolumeMaker) -> None:
    node = make_volume_node(np.zeros((3, 4, 5), np.int16))
    node.SetIJKToRASMatrix(vtk_matrix(np.diag([-1.0, 1.0, 2.0, 1.0])))
    fit_roi(a_new_box, node)
    assert np.linalg.det(np.array([[a_new_box.GetObjectToNodeMatrix().GetElement(r, c) for c in range(3)]
                                   for r in range(3)])) == pytest.approx(1)  # fmt: skip
    assert to_roi(a_new_box, to_volume(node))[0] == Roi((0, 0, 0), (5, 4, 3))


def test_a_sheared_volume_which_cannot_be_segmented_is_refused(a_new_box: Any, make_volume_node: VolumeMaker) -> None:
    node = make_volume_node(np.zeros((10, 4, 5), np.int16))  # as of a tilted gantry
    node.SetIJKToRASMatrix(vtk_matrix(np.array([[1, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])))
    with pytest.raises(InputError, match="sheared"):
        fit_roi(a_new_box, node)
    assert is_empty(a_new_box)


def test_one_slice_gives_a_box_that_is_not_empty(a_new_box: Any, make_volume_node: VolumeMaker) -> None:
    fit_roi(a_new_box, make_volume_node(np.zeros((1, 20, 30), np.int16)))
    assert not is_empty(a_new_box) and sorted(a_new_box.GetSize()) == [1, 20, 30]
    assert not a_new_box.GetDisplayNode().GetFillVisibility()


def test_segments_are_enclosed_with_a_margin_within_the_volume(a_new_box: Any, a_scene: Any, a_cube: Any) -> None:
    segmentation = a_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:7, 8:10, 1:3] = 1
    draw(segmentation, "organ", mask, matrix_of(a_cube))
    fit_roi(a_new_box, a_cube, segmentation, margin_mm=2.0)
    roi, _ = to_roi(a_new_box, to_volume(a_cube))
    assert roi == Roi((0, 6, 3), (5, 12, 9))


def test_without_voxels_in_segments_or_beside_the_volume_the_volume_is_taken(
    a_new_box: Any, a_scene: Any, a_cube: Any
) -> None:
    segmentation = a_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    fit_roi(a_new_box, a_cube, segmentation)
    assert to_roi(a_new_box, to_volume(a_cube))[0] == whole(to_volume(a_cube))
    draw(segmentation, "elsewhere", np.ones((3, 3, 3), np.uint8), vtk_matrix(np.eye(4) + 500 * np.eye(4, k=3)))
    fit_roi(a_new_box, a_cube, segmentation)
    assert to_roi(a_new_box, to_volume(a_cube))[0] == whole(to_volume(a_cube))


def test_an_earlier_place_of_the_box_is_forgotten(a_box: Any, a_cube: Any) -> None:
    fit_roi(a_box, a_cube)
    assert to_roi(a_box, to_volume(a_cube))[0] == whole(to_volume(a_cube))


def test_handles_are_shown_and_taken_off_while_the_box_stays_visible(a_box: Any) -> None:
    a_box.SetDisplayVisibility(False)
    show_handles(a_box)
    display = a_box.GetDisplayNode()
    assert display.GetHandlesInteractive() and display.GetVisibility()
    show_handles(a_box, False)
    assert not display.GetHandlesInteractive() and display.GetVisibility()


def test_a_hidden_box_limits_and_says_so(a_box: Any, a_cube: Any) -> None:
    a_box.CreateDefaultDisplayNodes()
    expected, _ = to_roi(a_box, to_volume(a_cube))
    a_box.SetDisplayVisibility(False)
    assert to_roi(a_box, to_volume(a_cube)) == (
        expected,
        ("Box is hidden, and limits what is segmented all the same.",),
    )
