"""Private temporary folders: what a killed program left is removed, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from apformer.files.lock import Holder
from apformer.jobs import JobClient, processes, scratch
from apformer.jobs.scratch import JOBS, OWNER, WEB, Scratch, own, private_folder, remove_if_left, sweep

GONE = "import os; print(os.getpid())"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def of_dead(folder: Path, prefix: str = WEB, name: str = "1") -> Path:
    """A folder whose owner has ended, with a patient's image in it."""
    made = folder / f"{prefix}{name}"
    made.mkdir()
    ended = subprocess.run([sys.executable, "-c", GONE], capture_output=True, text=True, check=True)
    holder = replace(Holder.this_process(), pid=int(ended.stdout))
    (made / OWNER).write_text(json.dumps(asdict(holder)))
    (made / "image.nii").write_bytes(b"a patient")
    return made


@pytest.mark.parametrize("prefix", [JOBS, WEB])
def test_what_a_dead_program_left_is_removed(temporary: Path, prefix: str) -> None:
    left = of_dead(temporary, prefix)
    assert sweep() == [left]
    assert not left.exists()


def test_what_a_running_program_owns_stays(temporary: Path) -> None:
    mine = private_folder(WEB)
    assert sweep() == []
    assert mine.is_dir()
    assert mine.stat().st_mode & 0o077 == 0


def test_a_later_process_with_the_number_of_the_dead_one_keeps_nothing(temporary: Path) -> None:
    mine = private_folder(JOBS)
    said = json.loads((mine / OWNER).read_text())
    if not said["started"]:
        pytest.skip("this system does not tell when a process was started")
    (mine / OWNER).write_text(json.dumps({**said, "started": "another boot:1"}))
    assert sweep() == [mine]


def test_a_process_of_which_only_the_number_is_left_keeps_nothing(temporary: Path) -> None:
    mine = private_folder(JOBS)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        said = json.loads((mine / OWNER).read_text())
        (mine / OWNER).write_text(json.dumps({**said, "pid": process.pid, "started": ""}))
        assert sweep() == []
        assert process.stdin is not None
        process.stdin.close()
        stat = Path(f"/proc/{process.pid}/stat")
        if not stat.exists():
            pytest.skip("this system does not tell of ended processes")
        while ") Z " not in stat.read_text():
            time.sleep(0.01)
        assert sweep() == [mine]


def test_a_folder_stays_while_a_session_in_it_still_runs(temporary: Path) -> None:
    left = of_dead(temporary)
    session = left / "session-1"
    session.mkdir()
    own(session)  # this process
    assert sweep() == []
    (session / OWNER).unlink()
    session.rmdir()
    assert remove_if_left(left)


def test_what_is_another_computers_or_names_nobody_or_lies_behind_a_link_stays(temporary: Path) -> None:
    elsewhere, nameless, damaged, other = (of_dead(temporary, name=str(number)) for number in range(4))
    said = json.loads((elsewhere / OWNER).read_text())
    (elsewhere / OWNER).write_text(json.dumps({**said, "host": "another"}))
    (nameless / OWNER).unlink()
    (damaged / OWNER).write_text('{"pid": "1"}')
    moved = other.rename(temporary / "somebody-elses")
    (temporary / f"{WEB}link").symlink_to(moved)
    (temporary / "apformer-other-1").mkdir()
    assert sweep() == []
    assert (moved / "image.nii").exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system's folder for temporary files is of one user")
def test_another_users_folder_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = of_dead(temporary)
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    assert sweep() == []


def test_an_empty_folder_that_names_nobody_goes_after_an_hour(temporary: Path) -> None:
    young, old = temporary / f"{JOBS}young", temporary / f"{JOBS}old"
    for folder in (young, old):
        folder.mkdir()
    before = time.time() - 4000
    os.utime(old, (before, before))
    assert sweep() == [old]


def test_a_program_that_uses_a_worker_removes_what_another_left(temporary: Path) -> None:
    left = of_dead(temporary, JOBS)
    code = (
        "import sys, time; from pathlib import Path; from apformer.jobs import JobClient\n"
        "client, left = JobClient(Path(sys.argv[1]) / 'logs'), Path(sys.argv[2])\n"
        "until = time.monotonic() + 60\n"
        "while left.exists() and time.monotonic() < until: time.sleep(0.05)\n"
        "assert client.folder().is_dir(); client.close()"
    )
    environment = processes.child_environment({**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary)})
    subprocess.run([sys.executable, "-c", code, str(temporary), str(left)], env=environment, check=True)
    assert [path.name for path in temporary.iterdir()] == []


def test_the_folder_of_jobs_says_whose_it_is_and_goes_when_it_is_closed(temporary: Path) -> None:
    made = Scratch()
    folder = made.folder()
    assert (folder.parent / OWNER).is_file()
    made.close()
    assert list(temporary.iterdir()) == []


def test_a_process_sweeps_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    swept: list[int] = []
    monkeypatch.setattr(scratch, "sweep", lambda: swept.append(1))
    scratch._swept.clear()
    for _ in range(3):
        JobClient(tmp_path).close()
    until = time.monotonic() + 10
    while not swept and time.monotonic() < until:
        time.sleep(0.01)
    assert swept == [1]
