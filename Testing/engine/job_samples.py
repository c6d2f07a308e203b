"""A host and handlers for the tests of the worker, all in one process."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from apformer.jobs.handlers import HANDLERS, Handler
from apformer.jobs.job import Job
from apformer.jobs.logs import LogFolder
from apformer.jobs.messages import Event, Fields
from apformer.jobs.warm import Warm
from apformer.jobs.worker import Worker

LONG = 1800.0  # seconds after which a test gives up waiting; never reached by one that passes


class Host:
    """A worker in a thread of this process, the lines it is sent, and the events it tells."""

    def __init__(self, handlers: Mapping[str, Handler] = HANDLERS, logs: Path | None = None) -> None:
        self.events: list[Event] = []
        self.stopped: bool | None = None
        self._arrived = threading.Condition()
        self._lines: queue.Queue[bytes] = queue.Queue()
        self.worker = Worker(self._hear, LogFolder(logs), handlers=handlers, warm=Warm())
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Host:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hang_up()

    def readline(self, size: int = -1, /) -> bytes:
        return self._lines.get()

    def send(self, job: str, identity: str, **fields: Any) -> None:
        self.send_bytes(json.dumps({"id": identity, "job": job, **fields}).encode() + b"\n")

    def send_bytes(self, line: bytes) -> None:
        self._lines.put(line)

    def hang_up(self) -> bool | None:
        """End the worker's input and wait until it has left; whether its job had stopped by then."""
        self._lines.put(b"")
        self._thread.join(LONG)
        return self.stopped

    def wait_for(self, wanted: Callable[[Event], bool]) -> Event:
        """The first event that is `wanted`, now or when it comes."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: next(filter(wanted, self.events), None), LONG)
        assert found is not None, self.events
        return found

    def ending_of(self, identity: str) -> Event:
        return self.wait_for(lambda event: event.ends and event.id == identity)

    def kinds(self, identity: str | None) -> list[str]:
        return [event.kind for event in self.events if event.id == identity]

    def _serve(self) -> None:
        self.stopped = self.worker.serve(self)

    def _hear(self, event: Event) -> None:
        with self._arrived:
            self.events.append(event)
            self._arrived.notify_all()


def handler(run: Callable[[Job], dict[str, Any]]) -> Handler:
    """A handler without fields."""
    return Handler(lambda fields: None, run)


def run_here(kind: str, on_event: Callable[[Job, Event], None] | None = None, **fields: Any) -> dict[str, Any]:
    """Run a real handler in this thread; `on_event` may cancel the job."""
    from apformer.jobs.messages import Request

    given = Fields(kind, fields)
    arguments = HANDLERS[kind].parse(given)
    given.close()
    warm = Warm()
    job = Job(Request("1", kind, fields), arguments, lambda event: on_event(job, event) if on_event else None, warm)
    return HANDLERS[kind].run(job)
