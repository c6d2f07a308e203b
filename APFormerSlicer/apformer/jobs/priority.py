"""Priorities: a worker that is not starved by other programs, and long work that leaves the computer to its user."""

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


def raise_to_normal() -> None:
    """Undo, where the system allows it, that the host runs at the lowest priority.

    On Linux, Slicer sets its main thread to nice 19 when it starts its thread for background work: setpriority is meant
    for that thread, but gets the id of the process, which there is that of the main thread. What the main thread
    starts inherits it. (vtkSlicerApplicationLogic::SetCurrentThreadPriorityToBackground in
    https://github.com/Slicer/Slicer/blob/main/Base/Logic/vtkSlicerApplicationLogic.cxx; 20 is cut to 19.)
    Only who may (RLIMIT_NICE, CAP_SYS_NICE) gets a priority back; `slowed` tells whether it was.
    """
    if sys.platform == "linux" and niceness() > 0:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)


def niceness() -> int:
    """Of the calling thread: 0 is normal, 19 the lowest priority; 0 where there is no such thing."""
    return os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0


def slowed() -> tuple[str, ...]:
    """What the user should know of this process's priority: nothing where it is normal."""
    number = niceness()
    if number <= 0:
        return ()
    return (
        f"The worker has a low priority (nice {number}), which it got from its host and may not change: beside other "
        "busy programs it takes longer. To prevent that in Slicer, set the environment variable "
        "SLICER_BACKGROUND_THREAD_PRIORITY to 0 before you start it.",
    )


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
