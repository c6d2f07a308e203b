"""A host and handlers for the tests of the worker, all in one process."""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from apformer.jobs import array_fields
from apformer.jobs.handlers import HANDLERS, Handler
from apformer.jobs.job import Job
from apformer.jobs.logs import LogFolder
from apformer.jobs.messages import Event, Fields
from apformer.jobs.warm import Warm
from apformer.jobs.worker import Worker
from cli_samples import noise

MATRIX = np.diag([-0.8, -0.9, 2.0, 1.0])
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
        event.encode()  # as the real worker does; what cannot be told raises
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


_NAMES = ("image", "array", "model", "device", "outputs", "roi", "what", "rounds", "dataset", "name", "base", "labels",
          "mapping", "replace", "seconds", "steps", "seed", "change", "path", "roots", "prediction", "target", "for",
          "file", "ijk_to_ras", "picture", "outlined", "names", "planes", "slices", "\ud800", "")  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 10**30, 10**400, 1e308, float("nan"), float("inf"), -0.0, "", "x", "\ud800", "\udcff",
    "a\0b", "~nobody-is-called-so", "~", "../../..", "/dev/null/x", "é" * 5000, [], {}, [[]], [None], ["\udfff"],
    {"": {}}, {"labels": "x"}, {"labels": "\ud800/x"}, [[1, 0, 0, 10**400]] * 4, [[0.0] * 4] * 4,
)  # fmt: skip


def random_lines(count: int, seed: int) -> Iterator[bytes]:
    """Lines that no worker should be sent: bytes, cut and nested JSON, requests with wrong ids, kinds and fields. None
    asks for what would be done: `shutdown`, and jobs whose required fields are all right, are left out."""
    draw = random.Random(seed)
    kinds = [*HANDLERS, "cancel", "ping"]

    def value(depth: int = 0) -> Any:
        if depth < 3 and draw.random() < 0.2:
            return {draw.choice(_NAMES): value(depth + 1) for _ in range(3)}
        return draw.choice(_VALUES)

    for _ in range(count):
        fields = {draw.choice(_NAMES): value() for _ in range(draw.randrange(8))}
        job = draw.choice(kinds) if draw.random() < 0.8 else value()
        line = json.dumps({**fields, "id": draw.choice(("1", "2", value())), "job": job, "wrong": True}).encode()
        form = draw.randrange(10)
        if form == 0:
            line = draw.randbytes(draw.randrange(200)).replace(b"\n", b"") + b"."
        elif form == 1:
            line = line[: draw.randrange(1, len(line))]
        elif form == 2:
            line = b"[" * draw.randrange(100_000) + line
        elif form == 3:
            line = b'{"id": "1", "job": "segment", "image": ' + b'{"a":' * 900 + b"1" + b"}" * 901
        elif form == 4:
            line = line.replace(b'"', b"\xff", 3)
        yield line


def asking(folder: Path, model: Path, array: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    """The fields of a request about an array, noise unless one is given, that lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = array_fields(folder, noise() if array is None else array, MATRIX, "MR", maps=more.pop("maps", ()))
    return {**fields, "model": str(model), "device": "cpu", **more}
