"""Plain Python signals: what changed, told to whoever connected."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Generic, TypeVarTuple

Ts = TypeVarTuple("Ts")


class Signal(Generic[*Ts]):
    """Listeners that are called in the order in which they connected, in the thread that emits: the main thread."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[*Ts], object]] = []

    def connect(self, listener: Callable[[*Ts], object]) -> None:
        self._listeners.append(listener)

    def disconnect(self, listener: Callable[[*Ts], object]) -> None:
        """Does nothing for one that is not connected."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, *values: *Ts) -> None:
        """Call the listeners; the fault of one is printed and keeps nothing from the others or from the emitter."""
        for listener in list(self._listeners):
            try:
                listener(*values)
            except Exception:  # noqa: BLE001  a panel's fault must not leave a job half done
                traceback.print_exc()
