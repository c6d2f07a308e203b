"""No file that somebody spoiled, by accident or on purpose, ends the program, shows what is not in it, or is taken for
a good one without a word. `python3 run.py test Testing/hostile --hostile 10000` tries more of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DEFAULT_INPUTS = 600


@pytest.mark.skipif(sys.platform == "win32", reason="the reading process is bounded by POSIX limits")
def test_spoiled_files_of_every_format_do_no_harm(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from fuzzer import BUDGET, fuzz

    inputs = request.config.getoption("--hostile") or DEFAULT_INPUTS

    report = fuzz(tmp_path, inputs)

    print("\n" + report.table())
    assert report.tried == inputs
    assert report.of("crashed", "hung") == 0, report.table()
    assert report.of("uncaught") == 0, report.table()
    assert report.of("outside") == 0, report.table()
    assert report.silent() * 1000 <= sum(report.counts["bit of packed voxels"].values()), report.table()
    assert report.most_taken <= BUDGET, report.table()
    assert report.of("refused") > inputs / 3  # the inputs are spoiled indeed
