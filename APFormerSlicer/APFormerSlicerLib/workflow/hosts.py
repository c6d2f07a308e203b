"""What a host brings: the process that does the work. Everything else here is plain Python on the main thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from apformer.jobs import Event

from .aside import Done, Work


class Worker(Protocol):
    """Requests to a worker process, and its events on the main thread.

    Slicer's host has one on QProcess and `apformer.jobs.Conversation`; the browser's is an `apformer.jobs.JobClient`
    whose `dispatch` is the loop's call_soon_threadsafe; scripts and tests have `headless.HeadlessWorker`.
    """

    def submit(self, job: str, fields: Mapping[str, Any], listener: Callable[[Event], None]) -> str:
        """Ask for a job and return its id. `listener` is called on the main thread, the last time with an event that
        `ends`: a result, an error (also when the worker dies) or cancelled.

        Raises:
            JobError: no worker can be started.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; nothing happens when it is over."""
        ...

    def forget(self, job_id: str) -> None:
        """A job is over and will not be asked about again."""
        ...

    def folder(self) -> Path:
        """A new private folder for the arrays of one job."""
        ...

    def discard(self, folder: Path) -> None:
        """Remove such a folder."""
        ...

    def aside(self, work: Work, done: Done) -> None:
        """Do `work` in a thread of its own, then tell `done` on the main thread; see `aside.start_aside`.

        A host in Slicer must see to it that Python's lock is free now and then: Qt's event loop may hold it.
        """
        ...
