"""A data set survives kills, full disks, read-only folders, other writers and wrong clocks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from apformer.datasets import SiteDataset
from apformer.errors import OutputError
from apformer.files import lock as locks
from apformer.files.lock import Holder, folder_lock
from dataset_samples import a_dataset, add_case, an_image, assert_sound, some_labels

ENGINE = Path(__file__).resolve().parents[2] / "APFormerSlicer"
KILLS = int(os.environ.get("APFORMER_KILLS", "10"))


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked, so that each starts at once")
def test_kills_at_random_moments_lose_no_case_and_leave_no_index_that_points_to_missing_files(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data")
    told = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("dataset_samples.py")), str(dataset.root), str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert int(told.stdout) > 0  # some changes were finished before the kill
    dataset = SiteDataset.open(dataset.root, wait_s=0.0)  # whoever was killed holds nothing any more
    add_case(dataset, seed=10**6)
    assert_sound(dataset)
    listed = {f"cases/{case.name}/{file}" for case in dataset.cases()
              for file in (case.image.file, *(revision.file for revision in case.revisions))}  # fmt: skip
    assert files_of(dataset.root) == listed | {"index.json"}, "nothing of a killed change is left, set aside neither"


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data")
    script = (
        "import sys; from pathlib import Path; from apformer.datasets import SiteDataset; import dataset_samples as s\n"
        "d = SiteDataset.open(Path(sys.argv[1]))\n"
        "for n in range(5): s.add_case(d, int(sys.argv[2]) + n)\n"
    )
    path = os.pathsep.join([str(ENGINE), str(Path(__file__).parent)])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(dataset.root), first], env={**os.environ, "PYTHONPATH": path}
        )
        for first in ("0", "100")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    dataset.reload()
    assert [case.number for case in dataset.cases()] == list(range(1, 11))
    assert_sound(dataset)


def test_a_second_writer_is_told_who_holds_the_data_set(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", wait_s=0.1)
    with folder_lock(dataset.root / ".lock"), pytest.raises(OutputError, match=f"process {os.getpid()} on"):
        add_case(dataset, 1)
    assert dataset.cases() == []
    add_case(dataset, 1)


def a_dead_holder() -> Holder:
    """The process has ended and was waited for, so its number is free."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return replace(Holder.this_process(), pid=ended.pid)


def leave_lock(path: Path, holder: Holder) -> None:
    path.write_text(json.dumps(asdict(holder)))


@pytest.mark.parametrize("since", ["1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"])
def test_neither_a_clock_set_forward_nor_back_frees_or_keeps_a_lock(tmp_path: Path, since: str) -> None:
    path = tmp_path / ".lock"
    leave_lock(path, replace(Holder.this_process(), since=since))
    os.utime(path, (0, 0))
    with pytest.raises(OutputError), folder_lock(path, wait_s=0.1):
        pass
    leave_lock(path, replace(a_dead_holder(), since=since))
    with folder_lock(path, wait_s=0.0) as taken_over:
        assert taken_over


def test_the_lock_of_another_computer_is_never_taken_over(tmp_path: Path) -> None:
    leave_lock(tmp_path / ".lock", replace(a_dead_holder(), host="elsewhere"))
    with pytest.raises(OutputError, match="on elsewhere") as caught, folder_lock(tmp_path / ".lock", wait_s=0.1):
        pass
    assert str(tmp_path / ".lock") in caught.value.remedy


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times of processes are read from /proc")
def test_a_later_process_with_the_same_number_does_not_keep_a_lock(tmp_path: Path) -> None:
    leave_lock(tmp_path / ".lock", replace(Holder.this_process(), started="another-boot:1"))
    with folder_lock(tmp_path / ".lock", wait_s=0.0) as taken_over:
        assert taken_over


def test_a_lock_whose_writer_died_before_naming_itself_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_NAMELESS_S", 0.1)
    (tmp_path / ".lock").write_bytes(b"")
    with folder_lock(tmp_path / ".lock", wait_s=5.0) as taken_over:
        assert taken_over
    assert files_of(tmp_path) == set()


def test_a_slow_breaker_does_not_remove_the_lock_of_a_quick_one(tmp_path: Path) -> None:
    path, dead = tmp_path / ".lock", a_dead_holder()
    leave_lock(path, dead)
    with folder_lock(path):  # the quick one: took over, and holds it
        locks._break(path, dead)  # the slow one still believes the lock to be that of the dead
        assert path.exists()


@pytest.mark.parametrize("step", ["fsync", "replace", "rename"])
def test_a_full_disk_leaves_the_data_set_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    dataset = a_dataset(tmp_path / "data", patients=1)
    before = (dataset.root / "index.json").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OutputError, match="No space left"):
        add_case(dataset, 1)
    if step != "rename":  # a correction renames nothing but files
        with pytest.raises(OutputError, match="No space left"):
            dataset.correct("case-0001", some_labels(an_image(0), value=2))
    monkeypatch.undo()
    assert (dataset.root / "index.json").read_bytes() == before
    assert_sound(SiteDataset.open(dataset.root))
    add_case(dataset, 1)
    assert_sound(dataset)


def test_a_disk_that_fills_just_before_the_index_is_written_costs_no_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = a_dataset(tmp_path / "data", patients=1)

    def fail(self: object) -> bytes:
        raise OutputError("full", "full", "full")

    monkeypatch.setattr("apformer.datasets.index.Index.save", fail)
    for change in (
        lambda: add_case(dataset, 1),
        lambda: dataset.correct("case-0001", some_labels(an_image(0), value=2)),
        lambda: dataset.remove("case-0001"),
    ):
        with pytest.raises(OutputError):
            change()
    monkeypatch.undo()
    dataset = SiteDataset.open(dataset.root)
    assert_sound(dataset)
    assert [case.current for case in dataset.cases()] == [1]
    dataset.correct("case-0001", some_labels(an_image(0), value=2))
    add_case(dataset, 1)
    assert_sound(dataset)


def test_a_read_only_folder_can_be_read_and_says_so_when_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = a_dataset(tmp_path / "data", patients=1).root
    real = os.open

    def refuse(path: object, flags: int, *rest: int, **more: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)  # root may write to any folder, so permissions would prove nothing
    dataset = SiteDataset.open(root)
    assert len(dataset.cases()) == 1
    for change in (
        lambda: add_case(dataset, 1),
        lambda: dataset.remove("case-0001"),
        lambda: dataset.add_label("Cyst"),
    ):
        with pytest.raises(OutputError, match="Read-only file system"):
            change()
    with pytest.raises(OutputError):
        SiteDataset.create(tmp_path / "other", ())


def test_half_written_files_go_and_whole_ones_are_set_aside(tmp_path: Path) -> None:
    root = a_dataset(tmp_path / "data", patients=2).root
    SiteDataset.open(root).remove("case-0002")
    (root / "cases" / "case-0001" / ".0123456789ab-labels-2.nii.gz").write_text("half")
    (root / "cases" / ".case-0009.new-abc").mkdir()
    (root / "cases" / "case-0007").mkdir()
    (root / "cases" / "case-0007" / "image.nii.gz").write_text("from a newer index")
    (root / "cases" / "notes.txt").write_text("the user's own")
    (root / ".0123456789ab-index.json").write_text("half")
    add_case(SiteDataset.open(root), 5)
    left = files_of(root)
    assert not any(name.rpartition("/")[2].startswith(".") for name in left)
    assert not (root / "cases" / ".case-0009.new-abc").exists()
    assert "cases/notes.txt" in left
    assert [name for name in left if name.startswith("set-aside/") and name.endswith("case-0007/image.nii.gz")]


_KILLED_BEFORE_THE_INDEX = """
import os, signal, sys
from pathlib import Path
import dataset_samples as s
from apformer.datasets import SiteDataset
from apformer.datasets.index import Index

Index.save = lambda self: os.kill(os.getpid(), signal.SIGKILL)
dataset = SiteDataset.open(Path(sys.argv[1]))
if sys.argv[2] == "add":
    s.add_case(dataset, 7)
else:
    dataset.correct("case-0001", s.some_labels(s.an_image(0), value=2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("change", ["add", "correct"])
@pytest.mark.parametrize("restored", [False, True])
def test_a_change_that_is_killed_before_the_index_is_written_leaves_nothing_unless_the_index_is_another_one_by_now(
    tmp_path: Path, change: str, restored: bool
) -> None:
    dataset = a_dataset(tmp_path / "data", patients=1)
    before = files_of(dataset.root)
    path = os.pathsep.join([str(ENGINE), str(Path(__file__).parent)])
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED_BEFORE_THE_INDEX, str(dataset.root), change],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert ended.returncode == -9
    assert any(name not in before and name.startswith("cases/") for name in files_of(dataset.root))
    if restored:
        index = dataset.root / "index.json"
        index.write_text(index.read_text("utf-8") + "\n", "utf-8")
    SiteDataset.open(dataset.root).add_label("Cyst")  # any next change
    left = files_of(dataset.root)
    assert {name for name in left if not name.startswith("set-aside/")} == before
    assert bool(left - before) is restored
    assert_sound(SiteDataset.open(dataset.root))
