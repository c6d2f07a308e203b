"""Threads of Python in Slicer's window, and the timer that hears of their ends."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import qt

from ..workflow.aside import Done, Work, start_aside

_LOOK_MS = 10
# PythonQt may hold Python's lock while Qt waits for events; while the main thread sleeps, other threads have it. Most
# of a hand-over is one call that needs no lock.
_YIELD_S = 0.001


class Asides:
    """Does work in threads; what came of it is told from Qt's event loop."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(_LOOK_MS)
        self._timer.connect("timeout()", self._look)

    def start(self, work: Work, done: Done) -> None:
        """As `workflow.hosts.Worker.aside`."""
        self._open += 1
        self._timer.start()
        start_aside(work, done, self._calls.put)

    def close(self) -> None:
        """Hear no more."""
        self._timer.stop()

    def _look(self, *_unused: Any) -> None:
        time.sleep(_YIELD_S)
        while not self._calls.empty():
            self._open -= 1
            if not self._open:
                self._timer.stop()
            self._calls.get_nowait()()
