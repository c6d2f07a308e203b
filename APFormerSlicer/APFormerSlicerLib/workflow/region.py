"""The region of interest that counts: whoever draws, moves, hides or shows it, or moves the volume, it is told."""

from __future__ import annotations

from typing import Any

from .scene_watch import Observation, SceneWatch
from .signals import Signal
from .state import State


class RegionWatch:
    """Follows the region that the state names: another node when another one, or another volume, is chosen.

    Attributes:
        moved: its points, size or visibility changed, its volume's place did, or transforms above either. While it is
            dragged this comes many times a second; whoever looks at an image then waits for a pause.
    """

    def __init__(self, watch: SceneWatch, state: State) -> None:
        self.moved: Signal[()] = Signal()
        self._watch, self._state = watch, state
        self._nodes: tuple[Any, Any] = (None, None)  # region, and its volume
        self._observations: list[Observation] = []
        state.changed.connect(self._follow)
        watch.closing.connect(self.stop)
        self._follow()

    def stop(self) -> None:
        """Listen to no node, until the state tells of one again."""
        self._observe(None, None)

    def _follow(self) -> None:
        if self._watch.is_closing:
            return
        region, volume = self._state.roi, self._state.volume
        if region is not self._nodes[0] or volume is not self._nodes[1]:
            self._observe(region, volume)

    def _observe(self, region: Any, volume: Any) -> None:
        for observation in self._observations:
            observation.stop()
        self._nodes, self._observations = (region, volume), []
        if region is None:
            return
        # What a transform above a node does is told as a change of the node, too.
        seen = [(region, "ModifiedEvent"), (region, region.DisplayModifiedEvent)]
        if volume is not None:
            seen.append((volume, "ModifiedEvent"))
        self._observations = [Observation(node, event, self._changed) for node, event in seen]

    def _changed(self, *_: Any) -> None:
        if not self._watch.is_closing:
            self.moved.emit()
