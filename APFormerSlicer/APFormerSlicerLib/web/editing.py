"""Slicer's segment editor on the chosen segmentation: effects, and undo for strokes and for results alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from trame_slicer.core import SegmentationEditor
from trame_slicer.segmentation import (
    BrushDiameterMode,
    SegmentationEffectErase,
    SegmentationEffectIslands,
    SegmentationEffectNoTool,
    SegmentationEffectPaint,
    SegmentationEffectScissors,
    SegmentationEffectThreshold,
    SegmentationIslandsMode,
)
from undo_stack import UndoCommand, UndoStack

EFFECTS = {
    "none": SegmentationEffectNoTool,
    "paint": SegmentationEffectPaint,
    "erase": SegmentationEffectErase,
    "scissors": SegmentationEffectScissors,
    "threshold": SegmentationEffectThreshold,
    "islands": SegmentationEffectIslands,
}
ISLANDS = {
    "largest": SegmentationIslandsMode.KEEP_LARGEST_ISLAND,
    "small": SegmentationIslandsMode.REMOVE_SMALL_ISLANDS,
}
_STEPS = 10  # of undo; each keeps a copy of the segmentation


class Editing:
    """One editor. It is also what `workflow` asks to make a result undoable (`scene.edits.SegmentEditor`)."""

    def __init__(self, editor: SegmentationEditor) -> None:
        self.editor = editor
        self.undo_stack = UndoStack(undo_limit=_STEPS)
        editor.set_undo_stack(self.undo_stack)
        editor.show_3d(True)  # else it takes the surfaces of each segmentation away with the first stroke

    # ---------------------------------------------------------------- for workflow

    def GetSegmentationNode(self) -> Any:
        return self.editor.active_segmentation_node

    def SaveStateForUndo(self) -> bool:
        """Keep the segmentation as it is now: one step that undo takes back."""
        self.undo_stack.push(_Replaced(self.editor.active_segmentation_node))
        return True

    # ---------------------------------------------------------------- for the page

    def edit(self, segmentation_node: Any, volume_node: Any) -> None:
        """Take another segmentation, or none; the undo steps of the one before are lost: they would change what is not
        seen any more."""
        if segmentation_node is None or volume_node is None:
            self.editor.deactivate_effect()
            self.undo_stack.clear()
        elif segmentation_node is not self.GetSegmentationNode():
            self.editor.set_active_segmentation(segmentation_node, volume_node)

    def choose_segment(self, segment_id: str) -> None:
        self.editor.set_active_segment_id(segment_id)

    def choose_effect(self, name: str) -> None:
        self.editor.set_active_effect_type(EFFECTS[name])

    @property
    def effect_name(self) -> str:
        """A key of `EFFECTS`."""
        active = self.editor.active_effect_name
        return next((name for name, effect in EFFECTS.items() if effect.get_effect_name() == active), "none")

    def set_brush(self, diameter_mm: float, sphere: bool) -> None:
        """Of paint and erase; a sphere paints neighbouring slices too."""
        for name in ("paint", "erase"):
            effect = self.editor.get_effect(EFFECTS[name])
            effect.set_brush_diameter(diameter_mm, BrushDiameterMode.Absolute)
            effect.set_use_sphere_brush(sphere)

    def suggest_threshold(self) -> tuple[float, float]:
        """Otsu's threshold, and the highest value."""
        effect = self.editor.get_effect(SegmentationEffectThreshold)
        effect.auto_threshold()
        return effect.get_threshold_min_max_values()

    def set_threshold(self, low: float, high: float) -> None:
        self.editor.get_effect(SegmentationEffectThreshold).set_threshold_min_max_values((low, high))

    def apply_threshold(self) -> None:
        """Make the chosen segment of all voxels within the range."""
        self.editor.get_effect(SegmentationEffectThreshold).apply()
        self.editor.deactivate_effect()

    def apply_islands(self, mode: str, smallest: int) -> None:
        """Keep the largest connected part of the chosen segment, or remove parts of fewer voxels than `smallest`."""
        effect = self.editor.get_effect(SegmentationEffectIslands)
        effect.set_minimum_island_size(smallest)
        effect.apply(ISLANDS[mode])

    def undo(self) -> None:
        self.undo_stack.undo()

    def redo(self) -> None:
        self.undo_stack.redo()

    def connect(self, changed: Callable[[], object]) -> None:
        """Call `changed` after every edit, and when another tool, segment or undo step is at hand."""
        for signal in (*self.editor.signals(), *self.undo_stack.signals()):
            signal.connect(lambda *_: changed())


class _Replaced(UndoCommand):
    """A segmentation that something else is about to change."""

    def __init__(self, segmentation_node: Any) -> None:
        super().__init__()
        self._node = segmentation_node
        self._before = _copy(segmentation_node)
        self._after: Any = None

    def undo(self) -> None:
        self._after = _copy(self._node)
        self._show(self._before)

    def redo(self) -> None:
        if self._after is not None:  # the stack calls it when the command is pushed: nothing is undone yet
            self._show(self._after)

    def _show(self, state: Any) -> None:
        self._node.GetSegmentation().DeepCopy(state)
        self._node.GetSegmentation().Modified()
        self._node.Modified()


def _copy(segmentation_node: Any) -> Any:
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation_node.GetSegmentation())
    return copy
