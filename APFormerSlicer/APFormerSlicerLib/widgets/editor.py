"""Slicer's Segment Editor within the panel."""

from __future__ import annotations

from typing import Any

import slicer

_TAG = "APFormer"  # its own settings, so that the Segment Editor module keeps the user's
UNDO_STEPS = 10
# What corrects a segmentation, without "Hollow", "Logical operators", "Mask volume" and what extensions add: with them
# Undo is below the fold of a screen of 768 pixels. The Segment Editor module has all of them.
EFFECTS = ("Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin", "Smoothing",
           "Scissors", "Islands", "Threshold")  # fmt: skip
EFFECT_COLUMNS = 3  # one more than Slicer's own, for the same reason


class Editor:
    """Follows the chosen segmentation; also what makes results undoable (`scene.edits.SegmentEditor`).

    Args:
        widget: qMRMLSegmentEditorWidget without a scene yet: its settings have to be there first.
    """

    def __init__(self, widget: Any, scene: Any) -> None:
        self._widget, self._scene = widget, scene
        self._entered = False
        self._settings: Any = None
        widget.setMaximumNumberOfUndoStates(UNDO_STEPS)
        widget.setSegmentationNodeSelectorVisible(False)
        widget.setSourceVolumeNodeSelectorVisible(False)
        widget.setSwitchToSegmentationsButtonVisible(False)
        widget.setShow3DButtonVisible(False)  # the page has one that also centers the view
        widget.setEffectNameOrder(list(EFFECTS))
        widget.effectColumnCount = EFFECT_COLUMNS
        widget.setUnorderedEffectsVisible(False)
        self._take_settings()
        widget.setMRMLScene(scene)

    def edit(self, segmentation_node: Any, volume_node: Any) -> None:
        """Show these; None for none.

        Without a segmentation the widget takes no volume, and says so in Slicer's log; one that is new to it brings its
        own volume along (vtkSlicerSegmentEditorLogic::SetSourceVolumeNode, qMRMLSegmentEditorWidget).
        """
        self._take_settings()
        if segmentation_node is None:
            self._widget.setSourceVolumeNode(None)  # or its own chooser goes on to another volume when this is removed
        if self._widget.segmentationNode() is not segmentation_node:
            self._widget.setSegmentationNode(segmentation_node)
        if segmentation_node is not None and self._widget.sourceVolumeNode() is not volume_node:
            self._widget.setSourceVolumeNode(volume_node)
        self._widget.setEnabled(segmentation_node is not None)

    def enter(self) -> None:
        """The module was opened: listen to the keyboard and the views."""
        self._take_settings()
        if not self._entered:
            self._entered = True
            self._widget.installKeyboardShortcuts()
            self._widget.setupViewObservations()

    def leave(self) -> None:
        """Another module was opened: it must not be disturbed by effects and keys of ours."""
        if self._entered:
            self._entered = False
            self._widget.setActiveEffect(None)
            self._widget.uninstallKeyboardShortcuts()
            self._widget.removeViewObservations()

    def let_go(self) -> None:
        """The scene is being closed, and the settings with it."""
        self._widget.setActiveEffect(None)
        self._widget.setSourceVolumeNode(None)
        self._widget.setSegmentationNode(None)
        self._widget.removeViewObservations()
        self._settings = None

    def come_back(self) -> None:
        """After the scene was closed or loaded."""
        self._take_settings()
        if self._entered:
            self._widget.setupViewObservations()

    # ---------------------------------------------------------------- scene.edits.SegmentEditor

    def GetSegmentationNode(self) -> Any:
        return self._widget.segmentationNode()

    def SaveStateForUndo(self) -> Any:
        return self._widget.saveStateForUndo()

    def _take_settings(self) -> None:
        node = self._scene.GetSingletonNode(_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(_TAG)
            node = self._scene.AddNode(node)
        if node is not self._settings:
            self._settings = node
            self._widget.setMRMLSegmentEditorNode(node)
