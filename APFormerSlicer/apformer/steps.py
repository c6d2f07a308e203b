"""What long work is at, told to whoever asked beforehand, without every function in between handing it on.

A writer deep below says which step it begins and how far it is; a job that stores a case shows that, and may stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, float], None]
"""Told the step and its share that is done, 0 to 1; what it raises stops the work."""


class _Told:
    def __init__(self, listener: Listener) -> None:
        self.listener, self.step = listener, ""


_told: ContextVar[_Told | None] = ContextVar("listener of steps", default=None)


@contextmanager
def told(listener: Listener) -> Iterator[None]:
    """While the block runs, `listener` is told of the steps in it (in this thread, or what `asyncio` takes along)."""
    token = _told.set(_Told(listener))
    try:
        yield
    finally:
        _told.reset(token)


def begin(step: str) -> None:
    """A step begins, in words for the user: "storing the image"."""
    present = _told.get()
    if present is not None:
        present.step = step
        present.listener(step, 0.0)


def at(share: float) -> None:
    """How far the present step is; also where it may be stopped."""
    present = _told.get()
    if present is not None:
        present.listener(present.step, share)
