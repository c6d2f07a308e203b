"""The worker process of Slicer's window: a QProcess, and `apformer.jobs.Conversation` to understand it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qt
from apformer.jobs import Conversation, Event, JobError, processes
from apformer.jobs.client import GRACE_SECONDS, remove_leftovers
from apformer.jobs.exits import explain_exit
from apformer.jobs.logs import last_lines, log_name
from apformer.jobs.messages import READY
from apformer.jobs.scratch import Scratch

from ..workflow.aside import Done, Work
from .aside import Asides

_STOP_MS = 3000  # for a process that was ended to be gone


class ProcessWorker:
    """A `workflow.hosts.Worker` whose events come from Qt's event loop, on the main thread.

    The process starts at the first job and stays warm; after its death the next job starts another one.

    Args:
        python: the interpreter, or a launcher for it, such as PythonSlicer.
        logs: folder for one log file per job.
        grace_seconds: how long a cancelled job may take to stop by itself.
    """

    def __init__(self, python: str, logs: Path, grace_seconds: float = GRACE_SECONDS) -> None:
        self._python, self._logs, self._grace_ms = python, logs, round(grace_seconds * 1000)
        self._talk = Conversation()
        self._listeners: dict[str, Callable[[Event], None]] = {}
        self._process: Any = None
        self._log: Path | None = None
        self._killed = self._closed = False
        self._scratch, self._asides = Scratch(), Asides()

    def submit(self, job: str, fields: Mapping[str, Any], listener: Callable[[Event], None]) -> str:
        """As `workflow.hosts.Worker.submit`."""
        self._require_process()
        job_id, line = self._talk.request(job, fields)
        self._listeners[job_id] = listener
        self._process.write(line)
        return job_id

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; after the grace, the worker that still runs it is ended with all its children."""
        if job_id not in self._talk.jobs or self._process is None:
            return
        line = self._talk.cancel(job_id)
        if line:
            process = self._process
            process.write(line)
            qt.QTimer.singleShot(self._grace_ms, lambda: self._insist(job_id, process))

    def forget(self, job_id: str) -> None:
        """Drop what is known of a job that is over."""
        if job_id in self._talk.jobs:
            self._talk.forget(job_id)

    def folder(self) -> Path:
        """As `workflow.hosts.Worker.folder`."""
        return self._scratch.folder()

    def discard(self, folder: Path) -> None:
        """As `workflow.hosts.Worker.discard`; removing 100 MB and more takes a moment."""
        self.aside(lambda: self._scratch.discard(folder), lambda *_: None)

    def aside(self, work: Work, done: Done) -> None:
        """As `workflow.hosts.Worker.aside`."""
        self._asides.start(work, done)

    def close(self) -> None:
        """End the worker, tell the jobs that are lost, and remove the private folders."""
        self._closed = True
        self._asides.close()
        if self._process is not None:
            self._killed = True
            process = self._process
            process.closeWriteChannel()  # which ends it
            if not process.waitForFinished(self._grace_ms):
                self._kill(process)
                process.waitForFinished(_STOP_MS)
        self._scratch.close()

    # ---------------------------------------------------------------- the process

    def _require_process(self) -> None:
        if self._closed:
            raise JobError("The panel is closed.", "No job can be started.", "Open the module again.")
        if self._process is None:
            self._start()

    def _start(self) -> None:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            log = self._logs / log_name("worker", f"{os.getpid()}-{id(self):x}")
            log.touch(mode=0o600)
        except OSError as error:
            raise JobError(
                f"The log folder {self._logs} cannot be written: {error.strerror}.",
                "No job was started: its errors could not be told.",
                "Free some disk space, or make the folder writable.",
            ) from error
        environment = qt.QProcessEnvironment()
        for name, value in processes.child_environment().items():
            environment.insert(name, value)
        process = qt.QProcess()
        process.setProcessEnvironment(environment)
        process.setStandardErrorFile(str(log), qt.QIODevice.Append)
        process.connect("readyReadStandardOutput()", lambda: self._read(process))
        process.connect("finished(int,QProcess::ExitStatus)", lambda code, how: self._ended(process, code, how))
        program, *arguments = processes.command(self._python, self._logs)
        process.start(program, arguments)
        if not process.waitForStarted():
            raise JobError(
                f"The program {program} could not be started: {process.errorString()}.",
                "No job can run without it.",
                "Install Slicer again; if it happens again, report it with the log file.",
                str(log),
            )
        self._process, self._log, self._killed = process, log, False

    def _read(self, process: Any) -> None:
        self._tell(self._talk.feed(bytes(process.readAllStandardOutput().data())))

    def _insist(self, job_id: str, process: Any) -> None:
        state = self._talk.jobs.get(job_id)
        if process is self._process and state is not None and not state.over:
            self._killed = True
            self._kill(process)

    def _kill(self, process: Any) -> None:
        """End the worker and everything it started. PythonSlicer is a launcher, whose child is the worker: that one
        tells its own process id, and leads a process group of its own (`processes.lead_own_group`)."""
        if self._talk.pid is not None:
            processes.end_tree(self._talk.pid)
        if process.state() != qt.QProcess.NotRunning:
            process.kill()

    def _ended(self, process: Any, code: int, how: Any) -> None:
        """The worker is gone: tell the jobs that are lost with it, and give the others to a fresh one."""
        if process is not self._process:
            return
        self._read(process)
        if self._talk.pid is not None:
            processes.end_tree(self._talk.pid)  # children that outlive it
        running = self._talk.running
        log = running.log if running is not None and running.log else str(self._log)
        lines = last_lines(log) or [*last_lines(self._log), *self._talk.noise]
        unfinished = [state for state in self._talk.jobs.values() if state.status == "running"]
        # Qt gives the signal's number as the exit code of a process that a signal ended.
        status = -code if how == qt.QProcess.CrashExit and os.name != "nt" else code
        error = explain_exit(status, lines, log, self._talk.vitals, self._talk.pid)
        events = self._talk.ended(error, killed=self._killed)
        self._process = None
        process.deleteLater()
        for state in unfinished:
            remove_leftovers(state.request.fields)
        events += self._resend()
        self._tell(events)

    def _resend(self) -> list[Event]:
        """Give jobs that wait to a fresh worker; the endings of those that cannot be given."""
        waiting = self._talk.resend()
        try:
            for line in waiting:
                self._require_process()
                self._process.write(line)
        except JobError as error:
            return self._talk.ended(error)
        return []

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            if event.kind == READY or event.id is None:
                continue
            listener = self._listeners.pop(event.id, None) if event.ends else self._listeners.get(event.id)
            if listener is not None:
                listener(event)
