"""Undo: a result is one step that the Segment Editor can take back."""

from __future__ import annotations

from typing import Any, Protocol


class SegmentEditor(Protocol):
    """What is needed of a Segment Editor: vtkSlicerSegmentEditorLogic has it.

    In Slicer's window the logic is private to qMRMLSegmentEditorWidget; a host wraps the widget, whose segmentationNode
    and saveStateForUndo are these two.
    """

    def GetSegmentationNode(self) -> Any: ...

    def SaveStateForUndo(self) -> Any: ...


def save_for_undo(editor: SegmentEditor | None, segmentation_node: Any) -> bool:
    """Keep the segmentation as it is now, so that the editor's Undo brings it back.

    False when there is no editor or it edits another segmentation: taking it over would lose the undo steps of that
    one. Select `segmentation_node` in the editor first to have its results undone there.
    """
    if editor is None or editor.GetSegmentationNode() is not segmentation_node:
        return False
    return editor.SaveStateForUndo() is not False  # the widget's slot returns nothing
