"""What killed processes leave half made goes at the next start; what a living one makes stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from apformer import owner
from apformer.bundles import ModelLibrary
from apformer.bundles.swap import recover, recover_all, staging
from apformer.files import atomic, atomic_path
from apformer.owner import ABANDONED_SECONDS, HALF_MADE, HALF_WRITTEN, is_alive, mark
from bundle_samples import save_sample

ENGINE = Path(__file__).resolve().parents[2] / "APFormerSlicer"
posix = pytest.mark.skipif(sys.platform == "win32", reason="writers are killed by SIGKILL")
_OPEN = {
    "file": "with atomic_path(folder / 'out.nii.gz') as made: made.write_text('half'); wait()",
    "folder": "with staging(folder / 'mine') as made: (made / 'half').touch(); wait()",
    "swap": "with staging(folder / 'mine') as made: os.rename = renamed; put_in_place(made, folder / 'mine')",
    "import": "archive.load_bundle = library.load_bundle = lambda *_: wait(); "
    "library.ModelLibrary([folder]).import_zip(sys.argv[2])",
}
_WRITER = """
import os, sys, time
from pathlib import Path
from apformer.bundles import archive, library
from apformer.bundles.swap import put_in_place, staging
from apformer.files import atomic_path

folder, rename = Path(sys.argv[1]), os.rename

def wait():
    print("at it", flush=True)
    time.sleep(1000)

def renamed(source, target):
    rename(source, target)
    wait()

"""


@contextmanager
def writer(kind: str, folder: Path, *words: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is in the middle of making something in `folder`."""
    made = subprocess.Popen(
        [sys.executable, "-c", _WRITER + _OPEN[kind], str(folder), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
        stdout=subprocess.PIPE,
    )
    assert made.stdout is not None and made.stdout.readline() == b"at it\n"
    try:
        yield made
    finally:
        kill(made)
        made.stdout.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


def write_beside(folder: Path) -> None:
    """What the next command does that writes there, in a process that has not written there yet."""
    atomic._swept.clear()
    with atomic_path(folder / "other.nii.gz") as temporary:
        temporary.write_text("whole")


@posix
def test_a_file_that_a_killed_process_left_goes_when_the_next_one_writes_there_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    with writer("file", tmp_path) as living, writer("file", tmp_path) as dead:
        kill(dead)
        assert len(hidden(tmp_path)) == 2
        write_beside(tmp_path)
        (left,) = hidden(tmp_path)
        assert HALF_WRITTEN.fullmatch(left) and int(left[1:9], 16) == living.pid
    write_beside(tmp_path)
    assert hidden(tmp_path) == [] and (tmp_path / "other.nii.gz").read_text() == "whole"


@posix
def test_a_folder_that_a_killed_process_left_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    with writer("folder", tmp_path) as dead:
        recover(tmp_path / "mine")
        assert len(hidden(tmp_path)) == 1, "it lives"
        kill(dead)
        recover(tmp_path / "other")
        assert len(hidden(tmp_path)) == 1, "it is that of another target"
        with staging(tmp_path / "mine"):
            assert len(hidden(tmp_path)) == 1, "only the new one"
    assert hidden(tmp_path) == []


@posix
def test_an_import_that_is_killed_leaves_nothing_when_the_models_are_next_listed(tmp_path: Path) -> None:
    sample = save_sample(tmp_path / "sample")
    archive = ModelLibrary([tmp_path / "none"]).export_zip(sample.directory, tmp_path)
    models = tmp_path / "models"
    with writer("import", models, archive) as dead:
        assert ModelLibrary([models]).list() == []
        assert [name for name in hidden(models) if name.startswith(".import.new-")], "it lives"
        kill(dead)
    assert ModelLibrary([models]).list() == []
    assert hidden(models) == []


@posix
def test_an_old_folder_is_put_back_once_its_writer_is_dead_and_not_between_its_two_renames(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "old").touch()
    with writer("swap", tmp_path) as dead:
        recover_all(tmp_path)
        assert not (tmp_path / "mine").exists(), "its writer is about to put the new one in place"
        kill(dead)
    recover_all(tmp_path)
    assert (tmp_path / "mine" / "old").exists()
    assert hidden(tmp_path) == []


def test_a_mark_names_this_process_and_is_another_one_each_time() -> None:
    first, second = mark(), mark()
    assert first != second and len(first) == 24 and is_alive(first) is True
    assert is_alive(f"{first[:14]}{'0' * 6}{first[20:]}") is False, "a later process with the same number"
    assert is_alive(f"{2**22 + 7:08x}{first[8:]}") is False, "no process has that number"
    assert is_alive(f"{first[:8]}{'f' * 6}{first[14:]}") is None, "of another computer"
    assert is_alive("0123456789ab") is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the states of processes are read from /proc")
def test_a_process_that_has_ended_and_was_not_waited_for_does_not_run() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout is not None and ended.stdout.read() == b""  # it is about to be a zombie
    end = time.monotonic() + 100
    while owner.runs(ended.pid):
        assert time.monotonic() < end
        time.sleep(0.01)
    ended.stdout.close()
    ended.wait()


@pytest.mark.parametrize(
    ("name", "goes_when_old"),
    [
        (f".0000000a{'f' * 16}-out.nii.gz", True),  # of another computer
        (".0123456789ab-out.nii.gz", True),  # of an earlier version
        (".mine.new-abcdefgh", True),
        (".hidden", False),
        ("out.nii.gz", False),
        (".mine.old-abcdefgh", False),
    ],
)
def test_what_may_be_a_living_ones_goes_only_after_a_day(
    tmp_path: Path, name: str, goes_when_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.touch()
    owner.sweep([path])
    assert path.exists()
    now = time.time()
    monkeypatch.setattr(owner.time, "time", lambda: now + ABANDONED_SECONDS + 60)
    owner.sweep([path])
    assert path.exists() is not goes_when_old


def test_a_folder_of_another_computer_in_which_something_is_still_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f".mine.new-0000000a{'f' * 16}"
    folder.mkdir()
    assert HALF_MADE.fullmatch(folder.name)
    now = time.time()
    (folder / "image").touch()
    os.utime(folder / "image", (now + ABANDONED_SECONDS, now + ABANDONED_SECONDS))
    monkeypatch.setattr(owner.time, "time", lambda: now + ABANDONED_SECONDS + 60)
    owner.sweep([folder])
    assert folder.exists()
