"""A file appears complete or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from apformer.errors import OutputError
from apformer.files import atomic_path


def failing_with(number: int):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_the_file_takes_its_place_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "mask.seg.nrrd"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".seg.nrrd")
        temporary.write_text("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert list(target.parent.iterdir()) == [target]


def test_an_earlier_file_survives_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii.gz"
    target.write_text("earlier")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "Free some disk space"), (errno.EACCES, "may write to")])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_or_forbidden_disk_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    target = tmp_path / "mask.nii.gz"
    target.write_text("earlier")
    monkeypatch.setattr(f"apformer.files.atomic.os.{call}", failing_with(number))
    with pytest.raises(OutputError, match="could not be written") as caught, atomic_path(target) as temporary:
        temporary.write_text("whole")
    monkeypatch.undo()
    assert words in caught.value.remedy
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="could not be written"), atomic_path(tmp_path / "taken" / "mask.nii"):
        raise AssertionError("the block must not run")


def test_a_folder_in_place_of_the_file_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        raise AssertionError("the block must not run")
