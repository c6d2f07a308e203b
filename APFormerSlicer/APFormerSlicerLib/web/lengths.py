"""Distances that a reader measures: Slicer's own lines, between two clicks in a slice view."""

from __future__ import annotations

from typing import Any

from slicer import vtkMRMLInteractionNode

from ..workflow.scene_watch import Observation
from .desk import Desk

KEY = "l"
_OF = "APFormer.Measures"  # attribute of a line: the ID of its image
_COLOR = (0.45, 0.9, 0.95)


class Lengths:
    """The lines of each image; those of others are not seen.

    State of the page: measuring: whether the next clicks set a line. lengths: how many the chosen image has.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._interaction = desk.scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        self._placing: Any = None  # the line that is being set
        desk.state.update({"measuring": False, "lengths": 0})
        desk.action("measure")(self.measure)
        desk.action("remove_lengths")(self.remove)
        self._observation = Observation(
            self._interaction, vtkMRMLInteractionNode.InteractionModeChangedEvent, self._mode_changed
        )
        desk.workflow.state.changed.connect(self.refresh)
        desk.workflow.watch.removed.connect(lambda _: self.refresh())
        self._interaction.SetCurrentInteractionMode(vtkMRMLInteractionNode.AdjustWindowLevel)

    def measure(self) -> None:
        """Take the tool, or put it down."""
        desk = self._desk
        if self._placing is not None:
            self.stop()
        elif desk.volume is not None:
            desk.editing.choose_effect("none")  # which would take the clicks
            self._placing = self._new_line()
            desk.slicer.markups_logic.place_node(self._placing)
            self.refresh()

    def stop(self) -> None:
        """Put the tool down; a line that has one end only is removed."""
        if self._placing is not None:
            self._interaction.SetCurrentInteractionMode(vtkMRMLInteractionNode.ViewTransform)

    def remove(self) -> None:
        """Remove the lines of the chosen image."""
        self.stop()
        for line in self._lines():
            if self._is_of_chosen(line):
                self._desk.scene.RemoveNode(line)
        self.refresh()

    def refresh(self) -> None:
        """Show the lines of the chosen image and no others; remove those of images that were closed."""
        desk = self._desk
        for line in self._lines():
            if desk.scene.GetNodeByID(line.GetAttribute(_OF)) is None:
                desk.scene.RemoveNode(line)
            else:
                line.GetDisplayNode().SetVisibility(self._is_of_chosen(line))
        desk.state.measuring = self._placing is not None
        done = [line for line in self._lines() if self._is_of_chosen(line) and line is not self._placing]
        desk.state.lengths = len(done)

    def _mode_changed(self, *_: Any) -> None:
        """Slicer ends placing after the second click, and goes back to a mode in which dragging does nothing."""
        mode = self._interaction.GetCurrentInteractionMode()
        if mode != vtkMRMLInteractionNode.ViewTransform:
            return
        line, self._placing = self._placing, None
        if line is not None and line.GetScene() is not None and line.GetNumberOfDefinedControlPoints() < 2:
            self._desk.scene.RemoveNode(line)
        self._interaction.SetCurrentInteractionMode(vtkMRMLInteractionNode.AdjustWindowLevel)
        self.refresh()

    def _new_line(self) -> Any:
        line = self._desk.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Length")
        line.CreateDefaultDisplayNodes()
        line.SetAttribute(_OF, self._desk.volume.GetID())
        display = line.GetDisplayNode()
        display.SetVisibility3D(False)  # it was set in a slice
        display.SetSelectedColor(*_COLOR)
        display.SetColor(*_COLOR)
        display.SetPointLabelsVisibility(False)
        return line

    def _lines(self) -> list[Any]:
        scene, kind = self._desk.scene, "vtkMRMLMarkupsLineNode"
        nodes = [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]
        return [node for node in nodes if node.GetAttribute(_OF)]

    def _is_of_chosen(self, line: Any) -> bool:
        volume = self._desk.volume
        return volume is not None and line.GetAttribute(_OF) == volume.GetID()
