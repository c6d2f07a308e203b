"""Long work at a priority that leaves the computer to the person in front of it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")
NICENESS = 10  # of 19: other programs go first, and what is left over is used


def run_lowered(work: Callable[[], T]) -> T:
    """What `work` returns or raises; it runs in a thread of its own, at a low priority.

    Linux gives each thread its own priority, and the threads that torch starts inherit it, so nothing outside of
    `work` is slowed. Elsewhere the priority is the process's: Windows lets it be raised again afterwards, macOS does
    not unless the user may. Hosts therefore give such work a worker of its own.
    """
    with ThreadPoolExecutor(1, "low priority") as pool:
        return pool.submit(_lowered, work).result()


def _lowered(work: Callable[[], T]) -> T:
    with _of_thread() if sys.platform == "linux" else _of_process():
        return work()


@contextmanager
def _of_thread() -> Iterator[None]:
    """Nothing is put back: the thread, and those that it started, end with the work."""
    thread = threading.get_native_id()
    with suppress(OSError):  # a system that forbids it: the work is done all the same
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
    yield


@contextmanager
def _of_process() -> Iterator[None]:
    import psutil

    process = psutil.Process()
    before = process.nice()
    lowered = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else max(NICENESS, int(before))
    with suppress(psutil.Error):
        process.nice(lowered)
    try:
        yield
    finally:
        with suppress(psutil.Error):
            process.nice(before)
