"""How the tests are spread over the cores: `Testing/workers.py` and its hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import workers

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("cores", "processes"), [(1, 0), (2, 2), (3, 3), (64, workers.MOST)])
def test_whole_folders_are_spread_over_the_cores_and_one_core_gets_no_second_process(
    cores: int, processes: int
) -> None:
    assert workers.how_many([str(ROOT / "Testing")], cores, shown=False) == processes


def test_single_files_and_what_prints_stay_in_the_process_that_was_started() -> None:
    file = Path(__file__)
    assert workers.how_many([str(file), f"{file}::a_test"], 2, shown=False) == 0
    assert workers.how_many([str(file.parent)], 2, shown=True) == 0
    assert workers.how_many([str(file), str(file.parent)], 2, shown=False) == 2


def test_processes_share_the_threads_and_a_wish_of_the_user_goes_first() -> None:
    alone: dict[str, str] = {}
    workers.share_threads(alone, 8)
    assert alone == {}
    one_of_four = {"PYTEST_XDIST_WORKER_COUNT": "4"}
    workers.share_threads(one_of_four, 8)
    assert one_of_four["OMP_NUM_THREADS"] == "2"
    workers.share_threads(one_of_four, 1)
    assert one_of_four["OMP_NUM_THREADS"] == "2"
    more_than_cores = {"PYTEST_XDIST_WORKER_COUNT": "4"}
    workers.share_threads(more_than_cores, 2)
    assert more_than_cores["OMP_NUM_THREADS"] == "1"


def test_long_files_begin_and_the_rest_keeps_its_order(tmp_path: Path) -> None:
    for name, marked in (("a", False), ("b", True), ("c", False)):
        mark = "@pytest.mark.long\n" if marked else ""
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n\n\n{mark}def test_it():\n    pass\n")
    (tmp_path / "conftest.py").write_text("from workers import long_first as pytest_collection_modifyitems\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "markers=long", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "Testing")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line.partition("::")[0] for line in done.stdout.splitlines()[:3]] == [
        "test_b.py",
        "test_a.py",
        "test_c.py",
    ], done.stdout + done.stderr
