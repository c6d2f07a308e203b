"""Which views are drawn and sent again: not those that show nothing of what has changed.

When a slice view goes to another slice, Slicer's displayable managers ask all slice views to be drawn, in case they
show where it cuts them. The pages here do not show that, and drawing three views costs three times one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trame_slicer.views import AbstractView, ScheduledRenderStrategy, SliceView

_FIRST, _LAST = 1e6, -1e6  # priorities of observers: before all displayable managers, and after them


class Drawing:
    """Lets each slice view be drawn for its own slice and for what all of them show, not for another view's slice."""

    def __init__(self, views: Iterable[AbstractView]) -> None:
        self._going: Any = None  # the slice node that is telling of its change
        for view in views:
            if isinstance(view, SliceView):
                node = view.get_view_node()
                node.AddObserver("ModifiedEvent", self._begin, _FIRST)
                node.AddObserver("ModifiedEvent", self._end, _LAST)
                view.set_scheduled_render(_ForItself(self, view, view._scheduled_render))  # which has no other way out

    def concerns(self, view: AbstractView) -> bool:
        """Whether a view may show something of what is being changed."""
        return self._going is None or self._going is view.get_view_node()

    def _begin(self, node: Any, _event: str) -> None:
        self._going = node

    def _end(self, *_: Any) -> None:
        self._going = None


class _ForItself(ScheduledRenderStrategy):
    def __init__(self, drawing: Drawing, view: AbstractView, strategy: ScheduledRenderStrategy) -> None:
        super().__init__()
        self._drawing, self._view, self._strategy = drawing, view, strategy

    def schedule_render(self) -> None:
        if self._drawing.concerns(self._view):
            self._strategy.schedule_render()

    def did_render(self) -> None:
        self._strategy.did_render()
