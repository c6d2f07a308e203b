"""One job of the worker, as a host shows it: how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from apformer.errors import APFormerError
from apformer.jobs import Event, JobError
from apformer.jobs.exits import explain_error
from apformer.jobs.messages import CANCELLED, ERROR, LOG, METRICS, PROGRESS, RESULT

from .aside import Work
from .hosts import Worker
from .signals import Signal

MOST_TRIES = 3  # to write arrays that change meanwhile
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "cancelled"


class Run:
    """A job from its request to its end.

    Attributes:
        title: what it is, for people, such as "CT with liver-ct".
        status: "waiting", "running", then "done", "failed" or "cancelled".
        fraction, message, eta_s: how far it was when the worker told of it last; eta_s is None while that is not
            known. `left_s` and `is_late` go on from there.
        outcome: what a finished one gave; its kind depends on the job.
        error: why it failed, or why it was abandoned.
        lines: what it said to the user.
        changed: after every event. ended: once. metrics: measured values, as they come.
    """

    def __init__(
        self,
        worker: Worker,
        job: str,
        title: str,
        finish: Callable[[dict[str, Any]], Any],
        prepare: Callable[[dict[str, Any]], Work | None] = lambda data: None,
    ) -> None:
        """
        Args:
            finish: makes the outcome of the result's data; what it raises is why the run failed.
            prepare: gives what has to be done before that, in a thread of its own; asked again afterwards, up to
                `MOST_TRIES` times, until it gives None.
        """
        self.job, self.title = job, title
        self.status, self.fraction, self.message = WAITING, 0.0, ""
        self.eta_s: float | None = None
        self.outcome: Any = None
        self.error: APFormerError | None = None
        self.lines: list[str] = []
        self.cancelling = False
        self.changed: Signal[Run] = Signal()
        self.ended: Signal[Run] = Signal()
        self.metrics: Signal[dict[str, Any]] = Signal()
        self._worker, self._finish, self._prepare = worker, finish, prepare
        self._told_at = monotonic()
        self._id: str | None = None
        self._folder: Path | None = None
        self._job_over = False

    @property
    def over(self) -> bool:
        return self.status in (DONE, FAILED, STOPPED)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left by now, as the worker estimated last; None where that is not known, or has passed."""
        left = None if self.eta_s is None else self.eta_s - (monotonic() - self._told_at)
        return None if left is None or left <= 0.0 else left

    @property
    def is_late(self) -> bool:
        """Whether the time that was estimated last has passed, and nothing was heard since."""
        return bool(self.eta_s) and self.left_s is None and not self.over

    def start(self, fields: Mapping[str, Any], folder: Path | None = None) -> None:
        """Send the request. `folder` holds its arrays, and is removed when the job is over or cannot start.

        Raises:
            JobError: no worker can be started.
        """
        self._folder = folder
        try:
            job_id = self._worker.submit(self.job, fields, self._hear)
        except BaseException:
            self._clean_up()
            raise
        self._id = job_id
        if self._job_over:  # a worker may tell all before it returns
            self._worker.forget(job_id)
        elif self.over:  # it was given up while it was sent
            self._worker.cancel(job_id)

    def hand_over(
        self, write: Callable[[], Mapping[str, Any]], folder: Path, stamp: Callable[[], object] = lambda: None
    ) -> None:
        """Have `write` put arrays into `folder` and give the fields, in a thread of its own; then send the request.

        What cannot be written, or a worker that cannot be started, is why the run fails.

        Args:
            write: touches no node, only memory that it keeps alive.
            stamp: is asked on the main thread before and after; where it differs, the arrays were changed while they
                were written, and are written again (`MOST_TRIES` times in all: then the job's own check tells of it).
        """
        self._folder = folder
        self.say("handing over the image")
        self._write(write, stamp, MOST_TRIES)

    def cancel(self) -> None:
        """Ask for its end, which comes as an event; a result that is on its way is not used. One that was not sent yet
        ends at once."""
        if self.over:
            return
        self.cancelling = True
        if self._id is None:
            self._end(STOPPED)
            return
        self._worker.cancel(self._id)
        self.changed.emit(self)

    def abandon(self, why: APFormerError) -> None:
        """End it here and now, whatever the worker still does: what it works for is gone."""
        if self.over:
            return
        self.cancelling = True
        if self._id is not None:
            self._worker.cancel(self._id)
        self._end(STOPPED, why)

    def fail(self, error: APFormerError) -> None:
        """It cannot begin."""
        if not self.over:
            self._end(FAILED, error)

    def say(self, message: str) -> None:
        """What it is at, before the worker tells of it."""
        self.message = message
        self.changed.emit(self)

    def keep_folder(self) -> Path | None:
        """Its folder, which is the caller's to discard from now on."""
        folder, self._folder = self._folder, None
        return folder

    def _write(self, write: Callable[[], Mapping[str, Any]], stamp: Callable[[], object], tries: int) -> None:
        before = stamp()

        def written(fields: Any, error: BaseException | None) -> None:
            if self.over:
                self._clean_up()
            elif error is not None:
                self._clean_up()
                self.fail(error if isinstance(error, APFormerError) else explain_error(error, None))
            elif tries > 1 and stamp() != before:
                self._write(write, stamp, tries - 1)
            else:
                self._send(fields)

        self._worker.aside(write, written)

    def _send(self, fields: Mapping[str, Any]) -> None:
        try:
            self.start(fields, self._folder)
        except APFormerError as error:
            self.fail(error)

    def _hear(self, event: Event) -> None:
        if event.ends and event.kind == RESULT:
            self._use(event, MOST_TRIES)
        elif event.ends:
            try:
                if not self.over:
                    self._conclude(event)
            finally:
                self._clean_up()
        elif not self.over:
            self._follow(event)

    def _follow(self, event: Event) -> None:
        if event.kind == PROGRESS:
            self.status = RUNNING
            self.fraction = float(event.data.get("fraction") or 0.0)
            self.message, self.eta_s = str(event.data.get("message", "")), event.data.get("eta_s")
            self._told_at = monotonic()
        elif event.kind == LOG:
            self.lines.append(str(event.data.get("message", "")))
        elif event.kind == METRICS:
            self.metrics.emit(event.data)
        self.changed.emit(self)

    def _use(self, event: Event, tries: int, error: BaseException | None = None) -> None:
        """The result, when all is prepared."""
        work: Work | None = None
        try:
            if not (self.over or self.cancelling):
                if error is not None:
                    raise error
                work = self._prepare(event.data) if tries else None
            if work is None and not self.over:
                self._conclude(event)
        except Exception as failure:  # noqa: BLE001  as what `finish` raises
            self._end(FAILED, failure if isinstance(failure, APFormerError) else explain_error(failure, None))
        finally:
            if work is None:
                self._clean_up()
        if work is not None:
            self._worker.aside(work, lambda _, failed: self._use(event, tries - 1, failed))

    def _conclude(self, event: Event) -> None:
        if event.kind == ERROR and not self.cancelling:
            self._end(FAILED, JobError.from_data(event.data))
        elif event.kind == CANCELLED or self.cancelling:
            self._end(STOPPED)
        elif event.kind == RESULT:
            try:
                self.outcome = self._finish(event.data)
            except Exception as error:  # noqa: BLE001  whatever went wrong, the host is told and can go on
                self._end(FAILED, error if isinstance(error, APFormerError) else explain_error(error, None))
            else:
                self.fraction = 1.0
                self._end(DONE)

    def _end(self, status: str, error: APFormerError | None = None) -> None:
        self.status, self.error, self.eta_s = status, error, None
        self.changed.emit(self)
        self.ended.emit(self)

    def _clean_up(self) -> None:
        self._job_over = True
        if self._folder is not None:
            self._worker.discard(self._folder)
            self._folder = None
        if self._id is not None:
            self._worker.forget(self._id)
