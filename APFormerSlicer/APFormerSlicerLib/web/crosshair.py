"""The crosshair that links the slice views: Slicer's own, set by Shift and the pointer, or by what is to be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..workflow.scene_watch import Observation
from .desk import Desk

KEY = "x"
_NOWHERE = (0.0, 0.0, 0.0)
_COLOR = (1.0, 0.85, 0.3)  # told apart from image and segments


class Crosshair:
    """Shows it where it was set, until the user hides it or another image is chosen."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._node = desk.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._node.SetCrosshairBehavior(self._node.OffsetJumpSlice)  # the other views go to the slices through it
        self._node.SetCrosshairToFine()
        self._node.SetCrosshairColor(*_COLOR)
        self._place: Sequence[float] = _NOWHERE
        self._volume: Any = None
        self._observation = Observation(self._node, "ModifiedEvent", self._look)
        desk.state.crosshair = False
        desk.action("toggle_crosshair")(self.toggle)
        desk.workflow.state.changed.connect(self._choose)

    def put(self, ras: Sequence[float]) -> None:
        """Mark a place, RAS in mm, in all slice views."""
        self._node.SetCrosshairRAS(*ras)
        self._show(True)

    def toggle(self) -> None:
        self._show(not self._desk.state.crosshair and self._desk.volume is not None)

    def _look(self, *_: Any) -> None:
        """It was moved with the pointer: then it is wanted."""
        place = self._node.GetCrosshairRAS()
        if place != self._place:
            self._place = place
            self._show(True)

    def _choose(self) -> None:
        if self._desk.volume is not self._volume:
            self._volume = self._desk.volume
            self._show(False)

    def _show(self, shown: bool) -> None:
        self._desk.state.crosshair = shown
        self._node.SetCrosshairMode(self._node.ShowBasic if shown else self._node.NoCrosshair)
