"""The Segment Editor's Undo takes a result back, and Redo brings it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from APFormerSlicerLib.scene import Result, Status, new_segmentation, set_status, status_of, to_label_map, write_result
from APFormerSlicerLib.scene.provenance import of_segment
from headless import draw, matrix_of, segment_mask


@pytest.fixture
def edit(a_scene: Any) -> Callable[[Any], Any]:
    """A Segment Editor's logic that edits the segmentation it is given."""

    def choose(segmentation_node: Any) -> Any:
        editor = slicer.vtkSlicerSegmentEditorLogic()
        editor.SetMRMLScene(a_scene)
        editor.SetSegmentEditorNode(a_scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        editor.SetSegmentationNode(segmentation_node)
        return editor

    return choose


def test_undo_takes_new_segments_back_and_redo_brings_them_again(
    a_volume_node: Any, a_result: Result, edit: Callable[[Any], Any]
) -> None:
    node = new_segmentation(a_volume_node)
    tumour = np.zeros_like(a_result.array)
    tumour[0:4, 1:4, 0:5] = 1
    segment_id = draw(node, "Tumour", tumour, matrix_of(a_volume_node))
    editor = edit(node)
    assert write_result(a_volume_node, a_result, node, editor).undoable
    editor.Undo()
    assert node.GetSegmentation().GetSegmentIDs() == (segment_id,)
    assert np.array_equal(segment_mask(node, segment_id, a_result.array.shape), tumour)
    editor.Redo()
    assert node.GetSegmentation().GetNumberOfSegments() == 3
    assert np.array_equal(to_label_map(node, a_volume_node, a_result.labels).array, a_result.array)


def test_undo_brings_a_replaced_segment_back_with_its_status_and_its_maker(
    a_volume_node: Any, a_result: Result, edit: Callable[[Any], Any]
) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    segmentation = node.GetSegmentation()
    liver = segmentation.GetSegmentIdBySegmentName("Liver")
    set_status(segmentation.GetSegment(liver), Status.COMPLETED)
    editor = edit(node)
    newer = replace(a_result.provenance, model_version="9.9.9")
    write_result(a_volume_node, Result(np.zeros_like(a_result.array), a_result.labels, newer), node, editor)
    editor.Undo()
    assert np.array_equal(to_label_map(node, a_volume_node, a_result.labels).array, a_result.array)
    assert status_of(segmentation.GetSegment(liver)) is Status.COMPLETED
    made = of_segment(segmentation.GetSegment(liver))
    assert made is not None
    assert made.model_version == "1.1.0"


def test_an_editor_of_another_segmentation_keeps_its_undo_steps(
    a_volume_node: Any, a_result: Result, edit: Callable[[Any], Any]
) -> None:
    edited = new_segmentation(a_volume_node)
    editor = edit(edited)
    editor.SaveStateForUndo()
    draw(edited, "Tumour", np.ones_like(a_result.array), matrix_of(a_volume_node))
    written = write_result(a_volume_node, a_result, None, editor)
    assert not written.undoable
    editor.Undo()
    assert edited.GetSegmentation().GetNumberOfSegments() == 0
    assert written.segmentation_node.GetSegmentation().GetNumberOfSegments() == 2


def test_an_editor_without_a_history_cannot_undo(
    a_volume_node: Any, a_result: Result, edit: Callable[[Any], Any]
) -> None:
    node = new_segmentation(a_volume_node)
    editor = edit(node)
    editor.SetSegmentationHistory(None)  # as trame-slicer does, which has an undo of its own
    assert not write_result(a_volume_node, a_result, node, editor).undoable


class Widget:
    """As qMRMLSegmentEditorWidget behind a host's wrapper: its slot returns nothing."""

    def __init__(self, node: Any) -> None:
        self.node, self.saved = node, 0

    def GetSegmentationNode(self) -> Any:
        return self.node

    def SaveStateForUndo(self) -> None:
        self.saved += 1


def test_a_wrapped_widget_saves_once_for_each_result(a_volume_node: Any, a_result: Result) -> None:
    node = new_segmentation(a_volume_node)
    widget = Widget(node)
    assert write_result(a_volume_node, a_result, node, widget).undoable
    assert widget.saved == 1
