"""The worker process behind Slicer's window, on the real QProcess: a job, a death told, a fresh start, an end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from apformer.jobs import Event
    from stand_in import Host

LONG = 100.0


@pytest.fixture
def a_worker(a_slicer: Host, tmp_path: Path) -> Iterator[Any]:
    from APFormerSlicerLib.widgets.worker import ProcessWorker

    worker = ProcessWorker(sys.executable, tmp_path / "Protokolle 脳")
    yield worker
    worker.close()


def ended(heard: list[Event]) -> bool:
    return bool(heard) and heard[-1].ends


def pid(worker: Any) -> int | None:
    return (worker._talk.worker or {}).get("pid")


def test_a_job_that_cannot_be_is_answered_and_the_worker_stays(a_slicer: Host, a_worker: Any) -> None:
    for _ in range(2):
        heard: list[Event] = []
        a_worker.forget(_finished(a_slicer, a_worker, heard))
        assert heard[-1].kind == "error" and heard[-1].data["remedy"]
    assert pid(a_worker) is not None


def _finished(slicer: Host, worker: Any, heard: list[Event]) -> str:
    job = worker.submit("preflight", {"for": "segment", "model": "no such model"}, heard.append)
    slicer.wait(lambda: ended(heard), LONG)
    return job


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_killed_worker_is_replaced(a_slicer: Host, a_worker: Any) -> None:
    _finished(a_slicer, a_worker, [])
    first = pid(a_worker)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    a_slicer.wait(lambda: a_worker._process is None, LONG)
    heard: list[Event] = []
    _finished(a_slicer, a_worker, heard)
    assert pid(a_worker) not in (None, first) and heard[-1].kind == "error"


def test_a_program_that_is_not_there_is_told(a_slicer: Host, tmp_path: Path) -> None:
    from apformer.jobs import JobError
    from APFormerSlicerLib.widgets.worker import ProcessWorker

    with pytest.raises(JobError, match="could not be started"):
        ProcessWorker(str(tmp_path / "no python"), tmp_path / "logs").submit("ping", {}, print)


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_worker_that_dies_before_any_job_began_is_told_with_its_last_lines(a_slicer: Host, tmp_path: Path) -> None:
    from APFormerSlicerLib.widgets.worker import ProcessWorker

    program = tmp_path / "dies.sh"
    program.write_text("#!/bin/sh\necho 'bad luck' >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    worker, heard = ProcessWorker(str(program), tmp_path / "logs"), []
    worker.submit("segment", {}, heard.append)
    a_slicer.wait(lambda: ended(heard), LONG)
    worker.close()
    assert heard[-1].kind == "error" and "status 3" in heard[-1].data["what"]
    assert "bad luck" in Path(heard[-1].data["log"]).read_text("utf-8")


def test_closing_ends_the_process_and_removes_the_folders(a_slicer: Host, a_worker: Any) -> None:
    _finished(a_slicer, a_worker, [])
    folder, process = a_worker.folder(), pid(a_worker)
    a_worker.close()
    assert not folder.exists() and process is not None
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


# ------------------------------------------------------------------ behind a launcher, as PythonSlicer is one

_STUBBORN = """
import subprocess, sys, time
from os import getpid
from pathlib import Path
from apformer.jobs.__main__ import claim_streams
from apformer.jobs.messages import ACCEPTED, PROGRESS, READY, Event, Request
from apformer.jobs.processes import lead_own_group
from apformer.jobs.vitals import Vitals

lead_own_group()
requests, events = claim_streams()
about = {"version": "test", "pid": getpid(), "jobs": [], "memory": Vitals.now().as_data()}
events.write(Event(READY, None, about).encode())
asked = Request.parse(requests.readline())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
log = Path(__file__).with_name(f"{getpid()}.log")
log.write_text(f"at work on {asked.job}", encoding="utf-8")
events.write(Event(ACCEPTED, asked.id, {"position": 0, "log": str(log)}).encode())
events.write(Event(PROGRESS, asked.id, {"fraction": 0.1, "message": str(child.pid), "eta_s": None}).encode())
time.sleep(1000)
"""


@pytest.fixture
def a_stubborn_worker(a_slicer: Host, tmp_path: Path) -> Iterator[Any]:
    """A launcher whose child is the worker, which has a child of its own and hears no cancel."""
    from APFormerSlicerLib.widgets.worker import ProcessWorker

    (tmp_path / "stubborn.py").write_text(_STUBBORN, encoding="utf-8")
    launcher = tmp_path / "launcher.sh"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "{tmp_path}/stubborn.py"\nexit $?\n', encoding="utf-8")
    launcher.chmod(0o755)
    worker = ProcessWorker(str(launcher), tmp_path / "logs", grace_seconds=0.3)
    yield worker
    worker.close()


def _at_work(slicer: Host, worker: Any, heard: list[Event]) -> tuple[str, list[int]]:
    """A job's id, and the processes that are at it: launcher, worker, its child."""
    job = worker.submit("segment", {}, heard.append)
    slicer.wait(lambda: any(event.kind == "progress" for event in heard), LONG)
    launcher = int(worker._process.processId())
    return job, [launcher, pid(worker) or 0, int(heard[-1].data["message"])]


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_job_that_does_not_stop_ends_with_the_launcher_the_worker_and_its_children(
    a_slicer: Host, a_stubborn_worker: Any
) -> None:
    from test_jobs_process import alive

    heard: list[Event] = []
    job, processes = _at_work(a_slicer, a_stubborn_worker, heard)
    assert len(set(processes)) == 3 and all(map(alive, processes))
    a_stubborn_worker.cancel(job)
    a_slicer.wait(lambda: ended(heard) and not any(map(alive, processes)), LONG)
    assert heard[-1].kind == "cancelled"
    _job, others = _at_work(a_slicer, a_stubborn_worker, [])
    assert not set(others) & set(processes)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_worker_that_dies_in_a_job_is_told_with_its_log_and_the_next_job_runs(
    a_slicer: Host, a_stubborn_worker: Any
) -> None:
    from test_jobs_process import alive

    heard: list[Event] = []
    _job, processes = _at_work(a_slicer, a_stubborn_worker, heard)
    os.kill(processes[1], signal.SIGKILL)
    a_slicer.wait(lambda: ended(heard) and not any(map(alive, processes)), LONG)
    told = heard[-1].data
    assert heard[-1].kind == "error" and "SIGKILL" in told["what"] and told["meaning"] and told["remedy"]
    assert "at work on segment" in Path(told["log"]).read_text("utf-8")
    _at_work(a_slicer, a_stubborn_worker, [])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts the processes that it ended")
def test_a_kill_whose_signal_the_launcher_hides_is_put_down_to_memory_when_the_kernel_counted_it(
    a_slicer: Host, a_stubborn_worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apformer.jobs import vitals

    (tmp_path / "launcher.sh").write_text(
        f'#!/bin/sh\n"{sys.executable}" "{tmp_path}/stubborn.py" 2>/dev/null\n[ $? = 0 ] || exit 1\n', encoding="utf-8"
    )
    counts = vitals.ended_by_kernel()
    for more, meaning in ((0, "It crashed"), (1, "Most likely the memory")):
        heard: list[Event] = []
        _job, processes = _at_work(a_slicer, a_stubborn_worker, heard)
        monkeypatch.setattr(
            vitals, "ended_by_kernel", lambda n=more: {file: count + n for file, count in counts.items()}
        )
        os.kill(processes[1], signal.SIGKILL)
        a_slicer.wait(lambda heard=heard: ended(heard), LONG)
        assert "status 1" in heard[-1].data["what"] and heard[-1].data["meaning"].startswith(meaning)
