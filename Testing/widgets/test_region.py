"""The region of interest: made, drawn, dragged, hidden, removed, by whomever; Segment follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from APFormerSlicerLib.scene import to_roi, to_volume
from panel_samples import ESTIMATE, Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (20, 30, 40)
PAUSE = 0.4  # seconds, more than a panel waits for after the last move


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


@pytest.fixture
def a_volume(shown: Shown) -> Any:
    return shown.choose(add_volume(shown.host.scene, noise(SHAPE)))


def toolbar_roi(shown: Shown) -> Any:
    """What Markups' toolbar makes when its button is pressed: nothing is drawn yet."""
    return shown.host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")


def draw(roi: Any, center: tuple[float, ...] = (20, 15, 20), size: tuple[float, ...] = (10, 10, 10)) -> None:
    roi.SetCenter(*center)
    roi.SetSize(*size)


def hears(shown: Shown) -> str:
    shown.host.settle(PAUSE)
    return str(shown.ui.preflightLabel.text)


def estimated(shown: Shown) -> str:
    """What the worker is asked about, answered; the region in the question."""
    before = len(shown.worker.asked)
    shown.host.wait(lambda: len(shown.worker.asked) > before)
    shown.worker.last.tell("result", **ESTIMATE)
    return str(shown.worker.last.fields.get("roi"))


def test_create_new_makes_a_box_around_the_volume_with_handles(shown: Shown, a_volume: Any) -> None:
    node = shown.ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
    assert shown.workflow.state.roi is node is shown.ui.roiSelector.currentNode()
    roi, notes = to_roi(node, to_volume(a_volume))
    assert (roi.start_ijk, roi.stop_ijk, notes) == ((0, 0, 0), SHAPE[::-1], ())
    display = node.GetDisplayNode()
    assert display.GetVisibility() and display.GetHandlesInteractive()
    assert hears(shown) == "Estimating..." and shown.ui.segmentButton.enabled
    assert estimated(shown) == "0:40,0:30,0:20"


def test_create_new_after_a_result_makes_a_box_around_its_segments(shown: Shown, a_volume: Any) -> None:
    shown.segment(a_block(SHAPE))
    roi, _ = to_roi(shown.ui.roiSelector.addNode("vtkMRMLMarkupsROINode"), to_volume(a_volume))
    assert roi.start_ijk == (0, 0, 0) and roi.stop_ijk < SHAPE[::-1]  # the block is at the beginning; a margin


def test_create_new_before_a_volume_is_chosen_is_fitted_to_the_first_one(shown: Shown) -> None:
    node = shown.ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
    assert node.GetSize() == (0, 0, 0)
    volume = shown.choose(add_volume(shown.host.scene, noise(SHAPE)))
    assert to_roi(node, to_volume(volume))[0].stop_ijk == SHAPE[::-1]


def test_a_box_that_is_drawn_after_it_was_chosen_is_noticed(shown: Shown, a_volume: Any) -> None:
    roi = toolbar_roi(shown)
    shown.ui.roiSelector.setCurrentNode(roi)
    assert not shown.ui.segmentButton.enabled and "The region of interest R is empty." in hears(shown)
    draw(roi)
    assert hears(shown) == "Estimating..." and shown.ui.segmentButton.enabled
    assert estimated(shown) == "15:26,10:21,8:13"


def test_a_box_that_is_dragged_gets_an_estimate_of_its_own_after_a_pause(shown: Shown, a_volume: Any) -> None:
    roi = toolbar_roi(shown)
    draw(roi)
    shown.ui.roiSelector.setCurrentNode(roi)
    first = estimated(shown)
    asked = len(shown.worker.asked)
    for step in range(10):  # of the mouse
        draw(roi, center=(20 - step, 15, 20))
        shown.host.settle(0.02)
    assert len(shown.worker.asked) == asked
    assert estimated(shown) != first


@pytest.mark.parametrize("how", ["box", "volume"])
def test_a_transform_that_moves_the_box_is_noticed(shown: Shown, a_volume: Any, how: str) -> None:
    import vtk

    roi = toolbar_roi(shown)
    draw(roi)
    shown.ui.roiSelector.setCurrentNode(roi)
    first = estimated(shown)
    moved, matrix = shown.host.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode"), vtk.vtkMatrix4x4()
    (roi if how == "box" else a_volume).SetAndObserveTransformNodeID(moved.GetID())
    shown.host.settle(PAUSE)
    matrix.SetElement(0, 3, 5.0)
    moved.SetMatrixTransformToParent(matrix)
    assert estimated(shown) != first


def test_a_hidden_box_still_counts_and_that_is_said(shown: Shown, a_volume: Any) -> None:
    roi = toolbar_roi(shown)
    draw(roi)
    shown.ui.roiSelector.setCurrentNode(roi)
    estimated(shown)
    roi.SetDisplayVisibility(False)
    assert estimated(shown) == "15:26,10:21,8:13"
    assert "R is hidden, and limits" in str(shown.ui.preflightLabel.text)


def test_a_removed_box_is_chosen_no_more_and_all_of_the_volume_counts(shown: Shown, a_volume: Any) -> None:
    roi, other = toolbar_roi(shown), toolbar_roi(shown)
    draw(roi, size=(0, 0, 0))
    shown.ui.roiSelector.setCurrentNode(roi)
    assert not shown.ui.segmentButton.enabled
    shown.host.scene.RemoveNode(roi)
    assert shown.ui.roiSelector.currentNode() is None and shown.ui.segmentButton.enabled
    assert estimated(shown) == "None" and other.GetScene() is not None


def test_only_the_chosen_region_has_handles(shown: Shown, a_volume: Any) -> None:
    first, second = toolbar_roi(shown), toolbar_roi(shown)
    for roi in (first, second):
        draw(roi)

    def handles() -> list[bool]:
        return [bool(roi.GetDisplayNode().GetHandlesInteractive()) for roi in (first, second)]

    shown.ui.roiSelector.setCurrentNode(first)
    shown.ui.roiSelector.setCurrentNode(second)
    assert handles() == [False, True]
    shown.ui.roiSelector.setCurrentNode(None)
    assert handles() == [False, False] and first.GetDisplayVisibility() == 1
    shown.ui.roiSelector.setCurrentNode(first)
    shown.choose(add_volume(shown.host.scene, noise(SHAPE), "another"))  # with a region of its own, here none
    assert handles() == [False, False]
    shown.choose(a_volume)
    assert handles() == [True, False]


def test_a_box_fitted_to_what_cannot_be_segmented_is_an_error_in_words(shown: Shown, a_volume: Any) -> None:
    from APFormerSlicerLib.scene.geometry import vtk_matrix

    a_volume.SetIJKToRASMatrix(vtk_matrix(np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])))
    shown.ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
    assert [error.what for error in shown.asks.errors] and "sheared" in shown.asks.errors[0].what


def test_the_scene_is_closed_with_a_region_and_the_next_one_is_followed(shown: Shown, a_volume: Any) -> None:
    draw(roi := toolbar_roi(shown))
    shown.ui.roiSelector.setCurrentNode(roi)
    shown.host.close_scene()
    assert shown.ui.roiSelector.currentNode() is None
    shown.choose(add_volume(shown.host.scene, noise(SHAPE)))
    node = shown.ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
    node.SetSize(0, 0, 0)
    assert "is empty" in hears(shown)
