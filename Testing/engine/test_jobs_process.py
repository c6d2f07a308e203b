"""The real worker process: clean stdout, crashes told in words, cancellation that is carried through, no orphans."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.jobs import AsyncJobClient, Event, JobCancelledError, JobClient, JobError, array_fields
from apformer.jobs.client import remove_leftovers
from apformer.jobs.logs import LogFolder, last_lines, log_name
from apformer.jobs.processes import child_environment, command, end_tree
from apformer.part import Part
from cli_samples import noise, save_slices_model
from job_samples import LONG, random_lines

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and shell scripts are POSIX's")
FIELDS = {"image": "none.nii", "model": "none", "outputs": {"labels": "none.npy"}}


def until(true: Callable[[], Any]) -> Any:
    """Wait for something that other processes do."""
    end = time.monotonic() + LONG
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    status = Path(f"/proc/{pid}/status")
    if Path("/proc").is_dir():
        return status.exists() and "State:\tZ" not in status.read_text()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Heard:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._arrived = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._arrived:
            self.events.append(event)
            self._arrived.notify_all()

    def wait_for(self, kind: str) -> Event:
        with self._arrived:
            found = self._arrived.wait_for(lambda: next((e for e in self.events if e.kind == kind), None), LONG)
        assert found is not None
        return found


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "Protokolle für 脳 & Co"


@pytest.fixture
def client(logs: Path) -> Iterator[JobClient]:
    with JobClient(logs) as client:
        yield client


def pid_of(client: JobClient) -> int:
    """The worker's process, once it is ready."""
    return until(lambda: (client._talk.worker or {}).get("pid"))


# ------------------------------------------------------------------ the whole way


def test_a_job_in_a_real_worker_with_a_folder_whose_name_is_not_ascii(
    client: JobClient, tmp_path: Path, logs: Path
) -> None:
    model = save_slices_model(tmp_path / "Modelle mit Leerzeichen ß" / "slices")
    folder = client.folder()
    heard = Heard()
    fields = {**array_fields(folder, noise(), np.eye(4), "MR"), "model": str(model), "device": "cpu"}
    job = client.submit("segment", fields, heard)
    result = client.wait(job, LONG)
    labels = np.load(result["paths"]["labels"], allow_pickle=False)
    assert Part.at(labels, result["parts"]["labels"]).shape_kji == (3, 12, 10) and labels.dtype == np.uint8
    assert [event.kind for event in heard.events][:2] == ["accepted", "progress"]
    assert heard.events[-1].kind == "result" and heard.events[-1].ends
    log = Path(heard.wait_for("accepted").data["log"])
    assert log.parent == logs and job in log.name and log.is_file()
    assert list(client._talk.noise) == []
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    pid = pid_of(client)
    client.close()
    assert not folder.exists() and not folder.parent.exists()
    until(lambda: not alive(pid))


@posix
def test_a_worker_that_is_killed_fails_its_job_in_words_and_a_fresh_one_takes_the_next(client: JobClient) -> None:
    heard = Heard()
    job = client.submit("segment", FIELDS, heard)
    heard.wait_for("accepted")
    first = pid_of(client)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(JobError, match="SIGKILL") as caught:
        client.wait(job, LONG)
    assert caught.value.meaning and caught.value.remedy
    assert caught.value.log is not None and Path(caught.value.log).exists()
    assert heard.events[-1].kind == "error"
    again = Heard()
    second = client.submit("segment", FIELDS, again)
    again.wait_for("accepted")
    assert pid_of(client) != first
    client.cancel(second)
    with pytest.raises(JobCancelledError):
        client.wait(second, LONG)


@posix
def test_a_worker_that_does_not_answer_is_ended_after_the_grace_and_waiting_jobs_go_to_a_fresh_one(
    logs: Path,
) -> None:
    with JobClient(logs, grace_seconds=0.2) as client:
        stuck, waiting = Heard(), Heard()
        job = client.submit("segment", FIELDS, stuck)
        other = client.submit("segment", FIELDS, waiting)
        waiting.wait_for("accepted")
        pid = pid_of(client)
        os.kill(pid, signal.SIGSTOP)  # as one that computes and does not look
        client.cancel(job)
        with pytest.raises(JobCancelledError):
            client.wait(job, LONG)
        assert not alive(pid)
        until(lambda: [event.kind for event in waiting.events].count("accepted") == 2)
        assert pid_of(client) != pid and not client.state(other).over


@posix
def test_a_launcher_and_the_python_it_starts_both_end(tmp_path: Path, logs: Path) -> None:
    launcher = tmp_path / "Python Slicer"
    launcher.write_text(f'#!/bin/sh\necho "launcher says hello"\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    with JobClient(logs, python=launcher, grace_seconds=0.2) as client:
        client.start()
        pid = pid_of(client)
        assert client._worker is not None and pid != client._worker._process.pid
        assert list(client._talk.noise) == ["launcher says hello"]
        os.kill(pid, signal.SIGSTOP)
        started = client._worker._process.pid
    until(lambda: not alive(pid) and not alive(started))


def test_a_python_that_is_not_there_is_told(tmp_path: Path, logs: Path) -> None:
    with JobClient(logs, python=tmp_path / "no python") as client, pytest.raises(JobError, match="no python") as caught:
        client.submit("segment", FIELDS)
    assert caught.value.remedy


@posix
def test_a_python_that_dies_at_once_fails_every_job_with_its_last_words(tmp_path: Path, logs: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nread line\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n")
    broken.chmod(0o755)
    with JobClient(logs, python=broken) as client:
        job = client.submit("segment", FIELDS)
        with pytest.raises(JobError, match="status 1") as caught:
            client.wait(job, LONG)
    assert "torch" in caught.value.meaning
    assert "ModuleNotFoundError" in caught.value.last_lines[-1]


def test_a_worker_whose_host_is_gone_ends_by_itself(logs: Path) -> None:
    worker = subprocess.Popen(
        command(sys.executable, logs), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
    )
    assert worker.stdin is not None and worker.stdout is not None
    ready = Event.parse(worker.stdout.readline())
    assert ready is not None and ready.kind == "ready"
    worker.stdin.write(json.dumps({"id": "1", "job": "segment", **FIELDS}).encode() + b"\n")
    worker.stdin.flush()
    worker.stdin.close()  # in the middle of its job
    assert worker.wait(LONG) == 0
    kinds = [event.kind for line in worker.stdout if (event := Event.parse(line)) is not None]
    worker.stdout.close()
    assert kinds[0] == "accepted"


def test_a_thousand_random_lines_do_not_end_a_worker_and_the_next_request_is_answered(logs: Path) -> None:
    lines = list(random_lines(1000, seed=0))
    good = json.dumps({"id": "good", "job": "models", "change": "rollback", "model": "none", "roots": [str(logs)]})
    done = subprocess.run(
        command(sys.executable, logs),
        input=b"\n".join([*lines, good.encode(), b'{"id": "ping", "job": "ping"}\n']),
        env=child_environment(),
        capture_output=True,
        check=False,
    )
    events = [Event.parse(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and all(events), done.stderr[-2000:]
    told = [event for event in events if event is not None]
    refused = [event for event in told if event.kind == "error"]
    assert len(refused) > 900 and all(event.data["what"] and event.data["remedy"] for event in refused)
    assert not [event.data for event in refused if "unexpected" in event.data["what"]], "each is refused for a reason"
    assert [event.kind for event in told if event.id == "ping"] == ["result"]
    assert next(event.kind for event in told if event.id == "good") == "accepted"


# ------------------------------------------------------------------ asyncio


def test_coroutines_hear_events_in_their_loop_and_cancelling_a_task_cancels_its_job(logs: Path) -> None:
    async def host() -> list[Event]:
        heard: list[Event] = []
        loop = asyncio.get_running_loop()
        accepted = asyncio.Event()

        def listen(event: Event) -> None:
            assert asyncio.get_running_loop() is loop
            heard.append(event)
            accepted.set()

        async with AsyncJobClient(logs) as client:
            task = asyncio.create_task(client.run("segment", FIELDS, listen))
            await asyncio.wait_for(accepted.wait(), LONG)
            (job,) = client.jobs._talk.jobs
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not client.jobs.state(job).over:
                await asyncio.sleep(0.01)
            assert client.jobs.state(job).status == "cancelled"
            with pytest.raises(JobError, match="'fly'"):
                await client.run("fly", {})
        return heard

    with ThreadPoolExecutor(1) as apart:  # a browser that other tests drive has a loop in the main thread
        assert apart.submit(asyncio.run, host()).result()[0].kind == "accepted"


# ------------------------------------------------------------------ streams, trees, logs


def run_python(code: str, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], env=child_environment(), capture_output=True, check=False
    )


def test_a_host_can_import_the_client_without_loading_anything_heavy() -> None:
    code = "import sys, apformer.jobs; sys.exit(bool({'torch', 'numpy', 'SimpleITK', 'psutil'} & set(sys.modules)))"
    assert run_python(code).returncode == 0


def test_what_libraries_print_never_reaches_the_events() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from apformer.jobs.__main__ import claim_streams\n"
        "requests, events = claim_streams()\n"
        "print('printed ä')\n"
        "os.write(1, b'written by C\\n')\n"
        "subprocess.run([sys.executable, '-c', 'print(\"by a child\")'])\n"
        "events.write(b'event\\n')\n"
    )
    done = run_python(code)
    assert done.stdout == b"event\n"
    for words in ("printed ä", "written by C", "by a child"):
        assert words in done.stderr.decode("utf-8")


@posix
def test_while_a_job_runs_its_log_catches_all_that_is_printed_even_the_traceback_of_a_crash(tmp_path: Path) -> None:
    code = (
        "import faulthandler, os, pathlib, sys\n"
        "from apformer.jobs.logs import LogFolder\n"
        "folder = LogFolder(pathlib.Path(sys.argv[1]), capture=True)\n"
        "faulthandler.enable()\n"
        "with folder.opened(folder.path_for('work', '1')) as log:\n"
        "    log.write('begun'); print('printed'); os.write(2, b'by C\\n')\n"
        "print('between jobs', flush=True)\n"
        "with folder.opened(folder.path_for('work', '2')):\n"
        "    faulthandler._sigsegv()\n"
    )
    done = run_python(code, tmp_path)
    first, second = sorted(tmp_path.iterdir(), key=lambda path: path.name.rpartition("-")[2])
    assert sorted(last_lines(first)) == ["begun", "by C", "printed"]
    assert done.stdout == b"between jobs\n"
    assert any("Segmentation fault" in line for line in last_lines(second))


@posix
def test_ending_a_tree_ends_the_children_of_children(tmp_path: Path) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]]).wait()"
    grandchild = (
        "import os, sys, time, pathlib; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    )
    told = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", child, grandchild, str(told)], start_new_session=True)
    pid = int(until(lambda: told.exists() and told.read_text()))
    end_tree(parent.pid)
    assert parent.wait(LONG) == -signal.SIGKILL
    until(lambda: not alive(pid))
    end_tree(parent.pid)  # nothing is there any more: no error


def test_only_the_oldest_logs_are_pruned_and_no_other_file(tmp_path: Path) -> None:
    names = [f"20240101-00000{n}-segment-{n}.log" for n in range(5)]
    for age, name in enumerate([*names, "notes.log", "20240101.txt"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    LogFolder(tmp_path, kept=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "20240101-000003-segment-3.log",
        *names[4:],
        "20240101.txt",
        "notes.log",
    ]


@pytest.mark.parametrize("identity", ["../../etc/passwd", "a:b*c?", "CON", "Ä" * 300, "x\ny"])
def test_a_log_has_a_name_that_every_system_accepts(identity: str) -> None:
    name = log_name("segment", identity)
    assert name.isascii() and len(name) < 120
    assert not set(name) & set('/\\:*?"<>|\n')


def test_a_log_folder_that_cannot_be_made_costs_the_logs_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = LogFolder(tmp_path / "file" / "logs")
    assert folder.path_for("segment", "1") is None
    with folder.opened(None) as log:
        log.write("still said")


def test_leftovers_of_a_killed_worker_are_removed_and_nothing_else(tmp_path: Path) -> None:
    half = tmp_path / ".0123456789ab-labels.nii.gz"
    others = [".0123456789ab-other.nii.gz", "labels.nii.gz", ".hidden", ".0123456789ab-labels"]
    for name in [half.name, *others]:
        (tmp_path / name).touch()
    remove_leftovers({"outputs": {"labels": str(tmp_path / "labels.nii.gz"), "uncertainty": "/none/u.npy"}})
    remove_leftovers({})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
