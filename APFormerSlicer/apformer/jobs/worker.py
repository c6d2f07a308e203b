"""The worker: requests are read as they come, jobs run one after the other in a thread of their own."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from os import getpid
from typing import Any, Protocol

from .. import __version__
from ..allocator import give_back
from ..errors import APFormerError
from .exits import explain_error
from .handlers import HANDLERS, Handler
from .job import Cancelled, Job
from .logs import LogFolder
from .messages import (
    ACCEPTED,
    CANCELLED,
    CONTROLS,
    ERROR,
    LONGEST_LINE,
    MEMORY,
    READY,
    RESULT,
    Event,
    Fields,
    Request,
    RequestError,
)
from .vitals import Pulse, Vitals
from .warm import Warm

GRACE_SECONDS = 2.0  # for a job to stop by itself


class Lines(Protocol):
    """A binary stream of lines."""

    def readline(self, size: int = -1, /) -> bytes: ...


class Worker:
    """Serves one host.

    Args:
        send: told every event, from several threads, one at a time.
        logs: one file per job.
        handlers: what can be asked for, by kind of job.
        warm: what is kept between jobs.
    """

    def __init__(
        self,
        send: Callable[[Event], None],
        logs: LogFolder,
        *,
        handlers: Mapping[str, Handler] = HANDLERS,
        warm: Warm | None = None,
    ) -> None:
        self._logs, self._handlers, self._warm = logs, handlers, warm or Warm()
        self._speak, self._speaking = send, threading.Lock()
        self._changed = threading.Condition()  # guards the three below
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._closing = False
        self._pulse = Pulse(lambda vitals: self._send(MEMORY, None, vitals.as_data()))

    def serve(self, stream: Lines) -> bool:
        """Answer requests until the stream ends or `shutdown` comes, then stop the job that runs.

        Returns: whether it stopped; False when it still computes after two seconds.
        """
        about = {"version": __version__, "pid": getpid(), "jobs": sorted(self._handlers)}
        self._send(READY, None, {**about, "memory": Vitals.now().as_data()})
        thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        thread.start()
        for line in read_lines(stream):
            if not self._receive(line):
                break
        self._close()
        thread.join(GRACE_SECONDS)
        return not thread.is_alive()

    # ---------------------------------------------------------------- reading

    def _receive(self, line: bytes) -> bool:
        """Act on one line; False when it was the last one."""
        request = None
        try:
            request = Request.parse(line)
            if request.job in CONTROLS:
                return self._control(request)
            self._enqueue(request)
        except Exception as error:  # noqa: BLE001  no line may end the worker, whatever it holds
            if not isinstance(error, APFormerError):
                _note(traceback.format_exc())
            taken = request is None or self._find(request.id) is not None
            # under the id of a job that goes on it would end that job in the eyes of the host
            self._send(ERROR, None if taken or request is None else request.id, explain_error(error, None).as_data())
        return True

    def _control(self, request: Request) -> bool:
        fields = Fields(request.job, request.fields)
        if request.job == "cancel":
            target = fields.text("target")
            fields.close()
            self._send(RESULT, request.id, {"target": target, "was": self._cancel(target)})
            return True
        fields.close()
        with self._changed:
            data = {"running": self._running.id if self._running else None, "queued": len(self._queue)}
        self._send(RESULT, request.id, data)
        return request.job != "shutdown"

    def _enqueue(self, request: Request) -> None:
        if self._find(request.id) is not None:
            raise RequestError(f"A job with the id {request.id!r} is there already.")
        handler = self._handlers.get(request.job)
        if handler is None:
            known = ", ".join(sorted([*self._handlers, *CONTROLS]))
            raise RequestError(f"There is no job {request.job[:40]!r}.", f"Ask for one of: {known}.")
        fields = Fields(request.job, request.fields)
        arguments = handler.parse(fields)
        fields.close()
        log_path = self._logs.path_for(request.job, request.id)
        job = Job(request, arguments, self._send_event, self._warm, log_path)
        with self._changed:
            position = len(self._queue) + (self._running is not None)
            log = None if job.log_path is None else str(job.log_path)
            self._send(ACCEPTED, job.id, {"position": position, "log": log})  # before the job can say anything
            self._queue.append(job)
            self._changed.notify()

    def _find(self, job_id: str) -> Job | None:
        """The job of that id that waits or runs."""
        with self._changed:
            waiting = [*self._queue, *([self._running] if self._running else [])]
        return next((job for job in waiting if job.id == job_id), None)

    def _cancel(self, job_id: str) -> str:
        """Take a job out of the queue or ask it to stop; what it was: "queued", "running" or "unknown"."""
        with self._changed:
            if self._running is not None and self._running.id == job_id:
                self._running.cancel()
                return "running"
            job = next((job for job in self._queue if job.id == job_id), None)
            if job is None:
                return "unknown"
            self._queue.remove(job)
        self._send(CANCELLED, job_id, {})
        return "queued"

    def _close(self) -> None:
        with self._changed:
            dropped, self._closing = list(self._queue), True
            self._queue.clear()
            if self._running is not None:
                self._running.cancel()
            self._changed.notify()
        for job in dropped:
            self._send(CANCELLED, job.id, {})

    # ---------------------------------------------------------------- working

    def _work(self) -> None:
        try:
            self._warm.prepare()
        except Exception:  # noqa: BLE001  the first job meets the same error, and tells it
            _note(traceback.format_exc())
        while (job := self._next()) is not None:
            self._pulse.start()
            try:
                kind, data = self._run(job)
            except BaseException as error:  # noqa: BLE001  its log could not be opened or closed
                _note(traceback.format_exc())
                kind, data = ERROR, explain_error(error, None).as_data()
            self._pulse.stop()
            _note(f"{_now()} {job.request.job} {job.id}: {kind}")
            with self._changed:
                self._running = None
            self._send(kind, job.id, data)
            del job, data
            give_back()  # an idle worker leaves the memory to others

    def _next(self) -> Job | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            self._running = self._queue.popleft()
            return self._running

    def _run(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Kind and data of the event that ends the job."""
        path = None if job.log_path is None else str(job.log_path)
        with self._logs.opened(job.log_path) as job.log:
            job.log.write(f"{_now()} {job.request.job} {job.id}, apformer {__version__}, process {getpid()}")
            try:
                job.progress(0.0, "starting")
                return RESULT, self._handlers[job.request.job].run(job)
            except Cancelled:
                return CANCELLED, {}
            except BaseException as error:  # noqa: BLE001  SystemExit in a library must not end the worker either
                job.log.write(traceback.format_exc())
                return ERROR, explain_error(error, path).as_data()
            finally:
                job.log.write(f"{_now()} end")

    def _send(self, kind: str, identity: str | None, data: dict[str, Any]) -> None:
        self._send_event(Event(kind, identity, data))

    def _send_event(self, event: Event) -> None:
        with self._speaking:
            try:
                self._speak(event)
            except Exception as error:  # noqa: BLE001  data that cannot be told; the job must still end
                _note(traceback.format_exc())
                if event.ends:
                    self._speak(Event(ERROR, event.id, explain_error(error, None).as_data()))


def read_lines(stream: Lines) -> Iterator[bytes]:
    """Lines without their end, empty ones left out; of one that is too long, only so much that it is seen to be."""
    while line := stream.readline(LONGEST_LINE + 2):
        whole = line.endswith(b"\n")
        while not whole and (rest := stream.readline(LONGEST_LINE)):
            whole = rest.endswith(b"\n")
        if not whole and len(line) <= LONGEST_LINE:
            return  # the host died within a line
        if line.strip():
            yield line.rstrip(b"\r\n")


def _note(text: str) -> None:
    """A line in the worker's own log; one that cannot be written, to a full disk, must not end the worker."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
