"""Segmenting a work list in the background: one image at a time, so that what a user asks for comes in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apformer.errors import APFormerError

from .hosts import Worker
from .inputs import Choice
from .runs import DONE, FAILED, Run
from .segmenting import Segmenting
from .signals import Signal
from .state import State, region_of
from .work_item import WorkItem
from .work_items import WorkItems


class Background:
    """Segments items, volumes onto the scene and files to results that wait until their image is loaded.

    Attributes:
        changed: one began, made progress or ended.
        ended: an item is over; the next one has begun.
    """

    def __init__(self, worker: Worker, state: State, segmenting: Segmenting, items: WorkItems) -> None:
        self.changed: Signal[()] = Signal()
        self.ended: Signal[WorkItem] = Signal()
        self._worker, self._state, self._segmenting, self._items = worker, state, segmenting, items
        self._queue: list[WorkItem] = []
        self._running: WorkItem | None = None
        self._advancing = False
        items.dropped.connect(self._dropped)

    @property
    def busy(self) -> bool:
        return self._running is not None

    def start(self, items: Sequence[WorkItem]) -> None:
        """Segment these, after the one that is at work, instead of what was to come; what fails does not stop the rest.
        Model, device and maps are those of the state at each one's turn."""
        self._queue = [item for item in items if item is not self._running]
        self._advance()

    def cancel(self) -> None:
        """Begin no other, and cancel the present one."""
        self._queue = []
        if self._running is not None and self._running.run is not None:
            self._running.run.cancel()

    def discard(self, item: WorkItem) -> None:
        """Forget the result that waits for its image."""
        if item.ahead is not None:
            self._worker.discard(item.ahead.folder)
            item.ahead = None

    def _advance(self) -> None:
        """Begin the next that can begin; a loop, for a job may end before it was begun."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._running is None and self._queue:
                item = self._queue.pop(0)
                if item in self._items:
                    self._begin(item)
        finally:
            self._advancing = False
        self.changed.emit()

    def _begin(self, item: WorkItem) -> None:
        item.error = None
        try:
            run = item.run = self._start(item)
        except APFormerError as error:
            item.error = error
            return
        self._running = item
        run.changed.connect(lambda _: self.changed.emit())
        if run.over:
            self._over(item, run)
        else:
            run.ended.connect(lambda run: self._over(item, run))

    def _start(self, item: WorkItem) -> Run:
        state = self._state
        maps = tuple(dict.fromkeys(["uncertainty", *state.maps]))  # of which the doubt is told
        if item.volume_node is not None:
            node: Any = item.volume_node
            return self._segmenting.start(Choice(node, state.model, region_of(node), None, state.device, maps))
        assert item.image is not None  # one of both
        self.discard(item)
        item.ahead_stamp = item.image.stamp()
        return self._segmenting.start_ahead(item.image.path, state.model, state.device, maps)

    def _over(self, item: WorkItem, run: Run) -> None:
        if self._running is item:
            self._running = None
        if run.status == FAILED:
            item.error = run.error
        elif run.status == DONE and item.image is not None and item.volume_node is None:
            item.ahead = run.outcome
            if item not in self._items:
                self.discard(item)
        self._advance()
        self.ended.emit(item)

    def _dropped(self, item: WorkItem) -> None:
        self.discard(item)
        if item is self._running and item.run is not None:
            item.run.cancel()
