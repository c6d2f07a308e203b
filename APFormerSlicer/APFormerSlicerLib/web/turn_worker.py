"""A worker whose jobs wait for their turn: other users' jobs run on the same machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apformer.jobs import Event, JobClient
from apformer.jobs.messages import CANCELLED, ERROR, PROGRESS

from ..workflow.aside import Done, Work, start_aside
from .lines import Message

Listener = Callable[[Event], None]
Say = Callable[[Mapping[str, Any]], object]

# Job -> the lane in which it waits; a preflight is short, and is answered while others compute.
_LANES = {"segment": "segment", "follow": "segment", "finetune": "finetune"}


class _Waiting:
    """A job that has no turn yet, or runs since it had one."""

    def __init__(self, job: str, fields: Mapping[str, Any], listener: Listener) -> None:
        self.job, self.fields, self.listener = job, fields, listener
        self.job_id: str | None = None  # the client's, once it was sent


class TurnWorker:
    """A `workflow.Worker` that asks the front before each long job. All methods are called on the main thread.

    Args:
        jobs: does the work; its `dispatch` calls listeners on the main thread.
        say: sends a message to the front.
    """

    def __init__(self, jobs: JobClient, say: Say) -> None:
        self._jobs, self._say = jobs, say
        self._waiting: dict[str, _Waiting] = {}

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        return bool(self._waiting)

    def start(self) -> None:
        """Start the worker ahead of its first job, so that it is warm then. Raises JobError."""
        self._jobs.start()

    def submit(self, job: str, fields: Mapping[str, Any], listener: Listener) -> str:
        if job not in _LANES:
            return self._jobs.submit(job, fields, listener)
        number = f"turn-{secrets.token_hex(6)}"
        self._waiting[number] = _Waiting(job, fields, listener)
        self._say({"ask": number, "lane": _LANES[job]})
        return number

    def cancel(self, job_id: str) -> None:
        waiting = self._waiting.get(job_id)
        if waiting is None:
            self._jobs.cancel(job_id)
        elif waiting.job_id is not None:
            self._jobs.cancel(waiting.job_id)
        else:
            self._end(job_id, Event(CANCELLED, job_id))

    def forget(self, job_id: str) -> None:
        if not job_id.startswith("turn-"):  # those were forgotten when they ended
            self._jobs.forget(job_id)

    def folder(self) -> Path:
        return self._jobs.folder()

    def discard(self, folder: Path) -> None:
        self._jobs.discard(folder)

    def aside(self, work: Work, done: Done) -> None:
        start_aside(work, done, self._jobs.dispatch)

    def hear(self, message: Message) -> None:
        """A message of the front."""
        if message.get("turn") in self._waiting:
            self._begin(str(message["turn"]))
        elif message.get("of") in self._waiting:
            self._tell_place(str(message["of"]), int(message["ahead"]))

    def _begin(self, number: str) -> None:
        waiting = self._waiting[number]

        def hear(event: Event) -> None:
            mine = Event(event.kind, number, event.data)
            if event.ends:
                if event.id is not None:
                    self._jobs.forget(event.id)
                self._end(number, mine)
            else:
                waiting.listener(mine)

        try:
            waiting.job_id = self._jobs.submit(waiting.job, waiting.fields, hear)
        except Exception as error:  # noqa: BLE001  no worker: the job fails, and the turn is given back
            what = error.as_dict() if hasattr(error, "as_dict") else {"what": str(error)}
            self._end(number, Event(ERROR, number, what))

    def _tell_place(self, number: str, ahead: int) -> None:
        jobs = "1 job" if ahead == 1 else f"{ahead} jobs"
        message = f"waiting: {jobs} of this machine's users before yours" if ahead else "starting"
        self._waiting[number].listener(Event(PROGRESS, number, {"fraction": 0.0, "message": message}))

    def _end(self, number: str, event: Event) -> None:
        waiting = self._waiting.pop(number)
        self._say({"over": number})
        waiting.listener(event)
