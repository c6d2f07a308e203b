"""Jobs from a Python host, with callbacks: a worker that is started, watched, and replaced when it dies."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..owner import HALF_WRITTEN
from . import processes
from .conversation import Conversation, JobState
from .exits import explain_exit
from .logs import last_lines, log_name
from .messages import Event, JobCancelledError, JobError, Listener
from .scratch import Scratch

GRACE_SECONDS = 2.0  # for a cancelled job, and for a worker that is told to stop
_READ_BYTES = 1 << 16

Dispatch = Callable[[Callable[[], None]], object]
_Told = tuple[Event, Listener | None, threading.Event | None]


def at_once(call: Callable[[], None]) -> None:
    """Call listeners in the thread that reads from the worker."""
    call()


class JobClient:
    """A worker process and the jobs it is given. All methods may be called from any thread.

    Args:
        logs: folder for one log file per job.
        python: the interpreter that does the work, or a launcher for it, such as PythonSlicer.
        environment: the worker's environment variables; this process's by default.
        dispatch: how listeners are called; hosts with an event loop pass what runs a function in it, such as
            `loop.call_soon_threadsafe`.
        grace_seconds: how long a cancelled job may take to stop by itself.
    """

    def __init__(
        self,
        logs: Path,
        *,
        python: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
        dispatch: Dispatch = at_once,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._logs, self._python, self._environment = logs, python, environment
        self.dispatch, self._grace = dispatch, grace_seconds
        self._lock = threading.RLock()
        self._talk = Conversation()
        self._listeners: dict[str, Listener] = {}
        self._over: dict[str, threading.Event] = {}
        self._worker: _Worker | None = None
        self._closed = False
        self._scratch = Scratch()
        atexit.register(self.close)  # a host that forgets must not leave a worker or files behind

    def __enter__(self) -> JobClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the worker ahead of the first job, so that it is warm then.

        Raises:
            JobError: it cannot be started.
        """
        with self._lock:
            self._require_worker()

    def submit(self, job: str, fields: Mapping[str, Any], listener: Listener | None = None) -> str:
        """Ask for a job and return its id. `listener` is told its events, the last of which has `ends` set.

        Raises:
            JobError: no worker can be started.
        """
        with self._lock:
            worker = self._require_worker()
            job_id, line = self._talk.request(job, fields)
            self._over[job_id] = threading.Event()
            if listener is not None:
                self._listeners[job_id] = listener
            worker.write(line)
            return job_id

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job. After the grace, the worker that still runs it is ended with all its children."""
        with self._lock:
            line = self._talk.cancel(job_id)
            worker = self._worker
            if not line or worker is None:
                return
            worker.write(line)
        timer = threading.Timer(self._grace, self._insist, (job_id, worker))
        timer.daemon = True
        timer.start()

    def state(self, job_id: str) -> JobState:
        """What is known of a job."""
        with self._lock:
            return self._talk.jobs[job_id]

    def wait(self, job_id: str, timeout: float | None = None) -> dict[str, Any]:
        """The result of a job, once it is there. Not for threads that run an event loop.

        Raises:
            JobError: the job failed, or the worker did.
            JobCancelledError: it was cancelled.
            TimeoutError: it is not over after `timeout` seconds.
        """
        if not self._over[job_id].wait(timeout):
            raise TimeoutError(f"job {job_id} is not over after {timeout} s")
        return outcome(self.state(job_id))

    def run(self, job: str, fields: Mapping[str, Any], listener: Listener | None = None) -> dict[str, Any]:
        """`submit`, `wait` and `forget`."""
        job_id = self.submit(job, fields, listener)
        try:
            return self.wait(job_id)
        finally:
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Drop what is known of a job that is over, its result too; of one that is not, nothing."""
        with self._lock:
            if self._talk.forget(job_id):
                del self._over[job_id]

    def folder(self) -> Path:
        """A new private folder for one job's arrays; `close` removes what is still there."""
        return self._scratch.folder()

    def discard(self, folder: Path) -> None:
        """Remove a folder of `folder`, once its results are read."""
        self._scratch.discard(folder)

    def close(self) -> None:
        """Cancel what is left, end the worker, remove the private folders."""
        with self._lock:
            self._closed = True
            worker = self._worker
            for job_id, state in self._talk.jobs.items():
                if not state.over:
                    self._talk.cancel(job_id)
        if worker is not None:
            worker.stop(self._grace)
        self._scratch.close()
        atexit.unregister(self.close)

    # ---------------------------------------------------------------- the worker

    def _require_worker(self) -> _Worker:
        if self._closed:
            raise JobError("The job client is closed.", "No job can be started.", "Make a new one.")
        if self._worker is None:
            self._worker = _Worker(self._python, self._logs, self._environment, self._heard, self._ended)
        return self._worker

    def _heard(self, worker: _Worker, data: bytes) -> None:
        with self._lock:
            events = self._talk.feed(data)
            worker.pid_of_python = self._talk.pid or worker.pid_of_python
            told = self._listened(events)
        self._tell(told)

    def _insist(self, job_id: str, worker: _Worker) -> None:
        with self._lock:
            state = self._talk.jobs.get(job_id)
            if worker is not self._worker or state is None or state.over:
                return
            worker.killed = True
        worker.kill()

    def _ended(self, worker: _Worker, code: int) -> None:
        """The worker is gone: tell the jobs that are lost with it, and give the others to a fresh one."""
        with self._lock:
            running = self._talk.running
            log = running.log if running is not None and running.log else str(worker.log)
            lines = last_lines(log) or [*last_lines(worker.log), *self._talk.noise]
            unfinished = [state for state in self._talk.jobs.values() if state.status == "running"]
            error = explain_exit(code, lines, log, self._talk.vitals, worker.pid_of_python)
            events = self._talk.ended(error, killed=worker.killed)
            self._worker = None
            for state in unfinished:
                remove_leftovers(state.request.fields)
            waiting = self._talk.resend()
            try:
                for line in waiting:
                    self._require_worker().write(line)
            except JobError as failed:
                events += self._talk.ended(failed)
            told = self._listened(events)
        self._tell(told)

    def _listened(self, events: list[Event]) -> list[_Told]:
        """Whom to tell of events, once the lock is given back."""
        told = []
        for event in events:
            if event.id is None:
                continue
            over = self._over[event.id] if event.ends else None
            told.append((event, self._listeners.get(event.id), over))
            if event.ends:
                self._listeners.pop(event.id, None)
        return told

    def _tell(self, told: list[_Told]) -> None:
        for event, listener, over in told:
            if listener is not None:
                _guarded(self.dispatch, partial(_guarded, listener, event))
            if over is not None:
                over.set()


def _guarded(function: Callable[..., object], *arguments: object) -> None:
    """Call a host's function; its fault must not stop the thread that reads from the worker."""
    try:
        function(*arguments)
    except Exception:  # noqa: BLE001
        traceback.print_exc()


class _Worker:
    """One process, from its start to its end, with the two threads that watch it.

    Attributes:
        log: what it prints outside of jobs.
        killed: whether the host ended it.
        pid_of_python: as the worker tells it; another than that of the process when a launcher was started.
    """

    def __init__(
        self,
        python: str | Path,
        logs: Path,
        environment: Mapping[str, str] | None,
        on_data: Callable[[_Worker, bytes], None],
        on_end: Callable[[_Worker, int], None],
    ) -> None:
        self.killed = False
        self.pid_of_python: int | None = None
        try:
            logs.mkdir(parents=True, exist_ok=True)
            self.log = logs / log_name("worker", f"{os.getpid()}-{id(self):x}")
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise JobError(
                f"The log folder {logs} cannot be written: {error.strerror}.",
                "No job was started: its errors could not be told.",
                "Choose another folder for logs.",
            ) from error
        with os.fdopen(descriptor, "ab") as stderr:
            try:
                self._process = processes.start(python, logs, environment, stderr)
            except OSError as error:
                raise JobError(
                    f"The program {python} could not be started: {error.strerror}.",
                    "No job can run without it.",
                    "Check the path of the Python that is to do the work.",
                    str(self.log),
                ) from error
        self._on_data, self._on_end = on_data, on_end
        self._gone = threading.Event()
        self._reader = threading.Thread(target=self._read, name="job events", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="job worker", daemon=True)
        self._reader.start()
        self._watcher.start()

    def write(self, line: bytes) -> None:
        """Send a line; when the worker is gone, its end tells what becomes of the jobs."""
        with suppress(OSError, ValueError):
            _pipe(self._process.stdin).write(line)

    def kill(self) -> None:
        """End it and everything it started, at once."""
        for pid in {self._process.pid, self.pid_of_python or self._process.pid}:
            processes.end_tree(pid)

    def stop(self, grace: float) -> None:
        """Close its stdin, which ends it; kill it when that does not."""
        self.killed = True
        with suppress(OSError):
            _pipe(self._process.stdin).close()
        if not self._gone.wait(grace + 1.0):  # it gives its job the same grace
            self.kill()
        if threading.current_thread() not in (self._reader, self._watcher):  # a listener may close the client
            self._watcher.join(grace)

    def _read(self) -> None:
        stdout = _pipe(self._process.stdout)
        with suppress(OSError, ValueError):
            while data := os.read(stdout.fileno(), _READ_BYTES):
                self._on_data(self, data)

    def _watch(self) -> None:
        processes.wait_for_end(self._process)
        self._gone.set()
        self.kill()  # children that outlive it would keep the pipe open
        code = self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                _pipe(stream).close()
        self._on_end(self, code)


def outcome(state: JobState) -> dict[str, Any]:
    """The result of a job that is over; JobError or JobCancelledError when it has none."""
    if state.error is not None:
        raise state.error
    if state.status == "cancelled":
        raise JobCancelledError
    return state.result or {}


def remove_leftovers(fields: Mapping[str, Any]) -> None:
    """Remove the temporary files that a worker left beside a request's "outputs" when it was ended."""
    outputs = fields.get("outputs")
    for path in map(Path, outputs.values()) if isinstance(outputs, Mapping) else ():
        temporary = re.compile(rf"{re.escape(path.stem)}(\.\w+)+")
        with suppress(OSError):
            for name in os.listdir(path.parent):
                found = HALF_WRITTEN.fullmatch(name)
                if found is not None and temporary.fullmatch(name.partition("-")[2]):
                    (path.parent / name).unlink()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
