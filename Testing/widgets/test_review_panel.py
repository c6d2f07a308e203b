"""The page Review: volumes that follow edits, maps, places to check, verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from APFormerSlicerLib.scene import Status
from headless import draw, matrix_of
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (5, 40, 40)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        panel.open("reviewPage")
        yield panel


@pytest.fixture
def a_result(shown: Shown) -> Any:
    """With two places where the network was unsure."""
    doubt = np.zeros(SHAPE, np.float32)
    doubt[1:4, 3:11, 3:11], doubt[1:4, 25:31, 25:31] = 0.8, 0.6
    shown.choose(add_volume(shown.host.scene, noise(SHAPE)))
    node = shown.segment(a_block(SHAPE), {"uncertainty": doubt})
    shown.host.settle(0.7)
    return node


def cells(shown: Shown, column: int) -> list[str]:
    table = shown.ui.segmentsTable
    return [table.item(row, column).text() for row in range(table.rowCount)]


def tips(shown: Shown) -> list[str]:
    table = shown.ui.segmentsTable
    return [table.item(row, 0).toolTip() for row in range(table.rowCount)]


def test_without_a_segmentation_every_button_says_why(shown: Shown) -> None:
    for button in (shown.ui.acceptButton, shown.ui.flagButton, shown.ui.nextPlaceButton, shown.ui.show3DButton):
        assert not button.enabled and "No segmentation is chosen" in button.toolTip
    assert "No segmentation is chosen" in shown.ui.reviewLabel.text


def test_segments_stand_with_volume_status_and_maker(shown: Shown, a_result: Any) -> None:
    assert (cells(shown, 0), cells(shown, 2)) == (["anterior", "posterior"], ["in progress"] * 2)
    assert cells(shown, 1) == ["0.0", "0.0"] and all("slices 1.0.0" in tip for tip in tips(shown))  # 8 voxels of 2 mm^3


def test_volumes_follow_an_edit(shown: Shown, a_result: Any) -> None:
    mask = np.ones(SHAPE, np.uint8)
    draw(a_result, "by hand", mask, matrix_of(shown.workflow.state.volume))
    shown.host.wait(lambda: shown.ui.segmentsTable.rowCount == 3)
    assert cells(shown, 1)[2] == "16.0" and "made by hand" in tips(shown)[2]


def test_next_place_moves_the_views_and_counts_down(shown: Shown, a_result: Any) -> None:
    assert shown.ui.placesLabel.text == "2 of 2 left" and not shown.ui.visitAgainButton.enabled
    shown.ui.nextPlaceButton.click()
    shown.host.settle(0.7)
    place = shown.workflow.reviewing.places(a_result)[0]
    node = shown.host.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    assert node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(place.ras[2])
    assert shown.ui.placesLabel.text == "1 of 2 left"
    shown.ui.nextPlaceButton.click()
    shown.host.settle(0.7)
    assert not shown.ui.nextPlaceButton.enabled and "All places" in shown.ui.nextPlaceButton.toolTip
    shown.ui.visitAgainButton.click()
    shown.host.settle(0.7)
    assert shown.ui.placesLabel.text == "2 of 2 left"


def test_a_map_lies_over_the_image_while_its_box_is_checked(shown: Shown, a_result: Any) -> None:
    view = shown.host.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    shown.ui.uncertaintyCheckBox.setChecked(True)
    assert view.GetForegroundVolumeID() is not None
    shown.ui.uncertaintyCheckBox.setChecked(False)
    assert view.GetForegroundVolumeID() is None
    assert not shown.ui.keptMapCheckBox.enabled and "Ask for it on the page Segment" in shown.ui.keptMapCheckBox.toolTip


def test_accept_marks_what_is_selected_else_all(shown: Shown, a_result: Any) -> None:
    shown.ui.segmentsTable.selectRow(1)
    shown.ui.acceptButton.click()
    shown.host.settle(0.7)
    assert cells(shown, 2) == ["in progress", "completed"]
    shown.ui.segmentsTable.clearSelection()
    shown.ui.acceptButton.click()
    assert [row.status for row in shown.workflow.reviewing.rows(a_result)] == [Status.COMPLETED] * 2


def test_flag_keeps_the_comment(shown: Shown, a_result: Any) -> None:
    shown.ui.commentEdit.setText('leaks into the "stomach" 胃')
    shown.ui.flagButton.click()
    rows = shown.workflow.reviewing.rows(a_result)
    assert [(row.status, row.comment) for row in rows] == [(Status.FLAGGED, 'leaks into the "stomach" 胃')] * 2
    assert shown.ui.commentEdit.text == ""


def test_show_3d_follows_its_button(shown: Shown, a_result: Any) -> None:
    shown.ui.show3DButton.click()
    assert shown.ui.show3DButton.checked and a_result.GetSegmentation().ContainsRepresentation("Closed surface")
    shown.ui.show3DButton.click()
    assert not a_result.GetSegmentation().ContainsRepresentation("Closed surface")
    assert not shown.ui.show3DButton.checked


LOOKED_AT = ["rotateToViewAxis 3", "resetFocalPoint", "resetCamera"]


def test_the_3d_view_is_centred_on_the_segments_the_first_time_and_then_left_as_it_was_turned(
    shown: Shown, a_result: Any
) -> None:
    asked = shown.host.app.layoutManager().asked
    shown.ui.show3DButton.click()
    assert asked == LOOKED_AT
    shown.ui.show3DButton.click()
    shown.ui.show3DButton.click()
    assert asked == LOOKED_AT
    shown.workflow.state.segmentation = None
    shown.segment(a_block(SHAPE))
    shown.ui.show3DButton.click()
    assert asked == LOOKED_AT * 2


def test_a_layout_without_a_3d_view_gives_way_to_four_views_and_that_is_said(shown: Shown, a_result: Any) -> None:
    manager = shown.host.app.layoutManager()
    manager.setLayout(6)
    manager.asked.clear()
    shown.ui.show3DButton.click()
    assert manager.asked == ["setLayout 3", *LOOKED_AT]
    shown.host.settle(0.7)  # longer than the table waits for edits
    assert "no 3D view; four views" in shown.ui.reviewLabel.text


def test_show_3d_follows_what_the_segment_editor_or_the_eye_does(shown: Shown, a_result: Any) -> None:
    a_result.CreateClosedSurfaceRepresentation()
    assert shown.ui.show3DButton.checked
    a_result.GetDisplayNode().SetVisibility3D(False)
    assert not shown.ui.show3DButton.checked
    shown.ui.show3DButton.click()
    assert shown.ui.show3DButton.checked and a_result.GetDisplayNode().GetVisibility3D()
    a_result.RemoveClosedSurfaceRepresentation()
    assert not shown.ui.show3DButton.checked


@pytest.mark.parametrize("what", ["removed", "none chosen", "another chosen", "scene closed"])
def test_show_3d_does_not_stay_pressed(shown: Shown, a_result: Any, what: str) -> None:
    shown.ui.show3DButton.click()
    if what == "removed":
        shown.host.scene.RemoveNode(a_result)
    elif what == "none chosen":
        shown.workflow.state.segmentation = None
    elif what == "another chosen":
        shown.workflow.state.segmentation = shown.host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    else:
        shown.host.close_scene()
    assert not shown.ui.show3DButton.checked


def test_a_segmentation_deleted_mid_review_leaves_a_usable_panel(shown: Shown, a_result: Any) -> None:
    shown.host.scene.RemoveNode(a_result)
    shown.host.settle(0.7)
    assert shown.ui.segmentsTable.rowCount == 0 and not shown.ui.acceptButton.enabled
    assert shown.ui.segmentEditor.segmentationNode() is None
    shown.segment(a_block(SHAPE))
    shown.host.settle(0.7)
    assert shown.ui.segmentsTable.rowCount == 2


def test_closing_the_scene_lets_the_editor_go_and_the_next_one_is_edited(shown: Shown, a_result: Any) -> None:
    shown.host.close_scene()
    assert shown.ui.segmentEditor.segmentationNode() is None and shown.ui.segmentsTable.rowCount == 0
    shown.choose(add_volume(shown.host.scene, noise(SHAPE)))
    node = shown.segment(a_block(SHAPE))
    assert shown.ui.segmentEditor.segmentationNode() is node
    assert shown.ui.segmentEditor.mrmlSegmentEditorNode().GetScene() is shown.host.scene
