"""One patient under two names is counted once."""

from __future__ import annotations

from pathlib import Path

from apformer.benchmarks.twins import once


def test_of_images_that_are_the_same_the_first_counts(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / name).write_bytes(content)
    assert once(["a", "b", "c"], lambda name: [tmp_path / name]) == ["a", "b"]


def test_missing_files_are_nobodys_twin(tmp_path: Path) -> None:
    assert once(["x", "y"], lambda name: [tmp_path / name]) == ["x", "y"]
