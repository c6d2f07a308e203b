"""Work in a thread of its own, for what a host's main thread must not wait for; its end is told on the main thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Work = Callable[[], Any]
Done = Callable[[Any, BaseException | None], None]
"""Told what the work returned, and None; or None, and what it raised."""


def start_aside(work: Work, done: Done, dispatch: Callable[[Callable[[], None]], object]) -> None:
    """Do `work`, which touches no node, and have `dispatch` call `done` on the main thread. For hosts' `Worker.aside`.

    The thread ends with the program: nothing of ours that it could leave half written is used.
    """

    def body() -> None:
        outcome, error = None, None
        try:
            outcome = work()
        except BaseException as raised:  # noqa: BLE001  whatever it is, the host is told
            error = raised
        dispatch(lambda: done(outcome, error))

    threading.Thread(target=body, name="aside", daemon=True).start()
