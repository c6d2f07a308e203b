"""One side of the talk with a worker, without any input or output: bytes in, events out, bytes to send.

Whoever owns the process feeds what it reads and writes what the methods return, so that threads, asyncio and Qt share
one understanding of what is going on.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .messages import ACCEPTED, CANCELLED, CONTROLS, ERROR, MEMORY, PROGRESS, READY, RESULT, Event, JobError, Request
from .vitals import Vitals

_NOISE_LINES = 20
_NOISE_CHARACTERS = 500  # of a line
_LONGEST_EVENT = 1 << 26  # bytes; a report is some hundred kB, and whatever goes on without a line's end is none


@dataclass
class JobState:
    """What is known of one job.

    Attributes:
        status: "sent", "queued", "running", then "done", "failed" or "cancelled".
        result: a finished job's; error: a failed one's.
        cancelling: whether its end was asked for.
    """

    request: Request
    status: str = "sent"
    fraction: float = 0.0
    message: str = ""
    eta_s: float | None = None
    log: str | None = None
    result: dict[str, Any] | None = None
    error: JobError | None = None
    cancelling: bool = False

    @property
    def over(self) -> bool:
        return self.status in ("done", "failed", "cancelled")


@dataclass
class Conversation:
    """What was asked and what was answered.

    Attributes:
        jobs: every job by id, also those that are over, until `forget`.
        worker: what the worker said of itself when it was ready: pid, version, kinds of jobs; None before.
        vitals: what it last told of its memory.
        noise: the last lines that were no events, such as what a launcher printed.
    """

    jobs: dict[str, JobState] = field(default_factory=dict)
    worker: dict[str, Any] | None = None
    vitals: Vitals | None = None
    noise: deque[str] = field(default_factory=lambda: deque(maxlen=_NOISE_LINES))
    _buffer: bytes = b""

    def request(self, job: str, fields: Mapping[str, Any]) -> tuple[str, bytes]:
        """A new job's id, and the line that asks for it."""
        request = Request(_new_id(), job, dict(fields))
        line = request.encode()  # before it is remembered: fields that JSON cannot hold fail here
        self.jobs[request.id] = JobState(request)
        return request.id, line

    def cancel(self, job_id: str) -> bytes:
        """The line that asks for the end of a job; empty when it is over."""
        state = self.jobs[job_id]
        if state.over:
            return b""
        state.cancelling = True
        return Request(_new_id(), "cancel", {"target": job_id}).encode()

    def control(self, job: str) -> bytes:
        """The line for "ping" or "shutdown"."""
        assert job in CONTROLS
        return Request(_new_id(), job).encode()

    def feed(self, data: bytes) -> list[Event]:
        """Events that are complete with `data`, whatever pieces it comes in."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _LONGEST_EVENT:
            self._remember_noise(self._buffer)
            self._buffer = b""
        events = []
        for line in lines:
            event = Event.parse(line)
            if event is None:
                self._remember_noise(line)
            elif event.kind == MEMORY:
                self.vitals = Vitals.from_data(event.data) or self.vitals
            elif self._concerns(event):
                self._learn(event)
                events.append(event)
        return events

    @property
    def pid(self) -> int | None:
        """The worker's process, as it told; another than the one that was started when that is a launcher."""
        told = (self.worker or {}).get("pid")
        return told if type(told) is int and 1 < told < 2**31 else None

    def ended(self, error: JobError, *, killed: bool = False) -> list[Event]:
        """The worker is gone. The endings of the jobs that are lost with it.

        A job that had begun has failed with `error`. Jobs that had not begun wait for `resend`, unless the worker died
        by itself (not `killed` by the host) before any began: then a fresh one would die as well, and they fail too.
        """
        still_open = [state for state in self.jobs.values() if not state.over]
        any_begun = any(state.status == "running" for state in still_open)
        self.worker, self.vitals, self._buffer = None, None, b""
        events = []
        for state in still_open:
            if state.cancelling:  # its end was wanted, however it came
                events.append(Event(CANCELLED, state.request.id))
            elif state.status == "running" or not (any_begun or killed):
                events.append(_failure(state, error))
            else:
                state.status = "sent"
        for event in events:
            self._learn(event)
        return events

    def resend(self) -> list[bytes]:
        """The lines of all jobs that are not over, for a fresh worker, in their order."""
        return [state.request.encode() for state in self.jobs.values() if not state.over]

    @property
    def running(self) -> JobState | None:
        """The job that the worker is at."""
        return next((state for state in self.jobs.values() if state.status == "running"), None)

    def forget(self, job_id: str) -> bool:
        """Drop what is known of a job, if it is over; whether it was."""
        over = self.jobs[job_id].over
        if over:
            del self.jobs[job_id]
        return over

    def _remember_noise(self, line: bytes) -> None:
        text = line[:_NOISE_CHARACTERS].decode("utf-8", errors="replace").strip()
        if text:
            self.noise.append(text)

    def _concerns(self, event: Event) -> bool:
        """Not answers to cancel, ping and shutdown, nor anything after a job's end."""
        return event.id is None or (event.id in self.jobs and not self.jobs[event.id].over)

    def _learn(self, event: Event) -> None:
        if event.kind == READY and self.worker is None:
            self.worker, self.vitals = event.data, Vitals.from_data(event.data.get("memory"))
        if event.id is None:
            return
        state = self.jobs[event.id]
        if event.kind == ACCEPTED:
            log = event.data.get("log")
            state.status, state.log = "queued", log if isinstance(log, str) else None
        elif event.kind == PROGRESS:
            state.status = "running"
            state.fraction = min(1.0, max(0.0, _number(event.data.get("fraction")) or 0.0))
            state.message, state.eta_s = str(event.data.get("message", "")), _number(event.data.get("eta_s"))
        elif event.kind == RESULT:
            state.status, state.result, state.fraction = "done", event.data, 1.0
        elif event.kind == ERROR:
            state.status, state.error = "failed", JobError.from_data(event.data)
        elif event.kind == CANCELLED:
            state.status = "cancelled"


def _failure(state: JobState, error: JobError) -> Event:
    begun = state.status == "running"  # earlier, its log is not there yet: the worker's tells why
    return Event(ERROR, state.request.id, {**error.as_data(), "log": state.log if begun else error.log})


def _number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def _new_id() -> str:
    return secrets.token_hex(6)
