"""A worker for scripts and tests, where no event loop runs: the caller says when events are to be heard."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apformer.jobs import Event, JobClient

from .aside import Done, Work, start_aside
from .runs import Run

Call = Callable[[], None]
_STEP_S = 0.1  # between looks at the clock while nothing comes


class HeadlessWorker:
    """A `hosts.Worker` whose events wait until `deliver` or `wait` is called, and are heard in that very thread.

    Args:
        logs, settings: as for JobClient; `dispatch` is this class's own.
    """

    def __init__(self, logs: Path, **settings: Any) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self.jobs = JobClient(logs, dispatch=self._calls.put, **settings)

    def __enter__(self) -> HeadlessWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: str, fields: Mapping[str, Any], listener: Callable[[Event], None]) -> str:
        return self.jobs.submit(job, fields, listener)

    def cancel(self, job_id: str) -> None:
        self.jobs.cancel(job_id)

    def forget(self, job_id: str) -> None:
        self.jobs.forget(job_id)

    def folder(self) -> Path:
        return self.jobs.folder()

    def discard(self, folder: Path) -> None:
        self.jobs.discard(folder)

    def aside(self, work: Work, done: Done) -> None:
        start_aside(work, done, self._calls.put)

    def deliver(self, timeout: float = 0.0) -> bool:
        """Hear all events that are there, or the next one within `timeout` seconds; whether there was any."""
        heard = False
        while True:
            try:
                call = self._calls.get(timeout=timeout) if timeout and not heard else self._calls.get_nowait()
            except queue.Empty:
                return heard
            call()
            heard = True

    def wait(self, run: Run, timeout: float | None = None) -> Run:
        """Hear events until the run is over.

        Raises:
            TimeoutError: it is not over after `timeout` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not run.over:
            self.deliver(_STEP_S)
            if end is not None and not run.over and time.monotonic() > end:
                raise TimeoutError(f"the {run.job} job is not over after {timeout} s")
        return run

    def close(self) -> None:
        """End the worker, and hear what it had to tell."""
        self.jobs.close()
        self.deliver()
