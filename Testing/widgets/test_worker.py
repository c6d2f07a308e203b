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
