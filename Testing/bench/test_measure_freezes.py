"""The program that measures where the window stands still sees that, whose fault it is, and the whole journey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure_freezes
import pytest
from measure_freezes import Watch, above

PROGRAM = Path(measure_freezes.__file__)
DATA = Path(os.environ.get("APFORMER_DATA") or PROGRAM.parents[2].parent / "shared" / "data")
TORSO = DATA / "torso-ct" / "torso_ct.nii.gz"


class Timer:
    """A QTimer whose ticks a test gives."""

    def __init__(self) -> None:
        self.call: Any = None

    def setInterval(self, milliseconds: int) -> None:
        assert milliseconds == measure_freezes.TICK_MS

    def connect(self, signal: str, call: Any) -> None:
        self.call = call

    def start(self) -> None: ...

    def stop(self) -> None: ...


def stand_still(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


def test_a_gap_is_told_with_its_stack_and_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(SimpleNamespace(QTimer=Timer))
    try:
        with watch.step("quick"):
            watch._timer.call()
        with watch.step("slow"):
            stand_still(0.5)
            watch._timer.call()
        monkeypatch.setattr(measure_freezes, "OURS", {f"{Path(__file__).name}:"})
        with watch.step("ours"):
            stand_still(0.5)
    finally:
        watch.stop()
    assert watch.steps["quick"]["gaps"] == []
    slow, ours = watch.steps["slow"], watch.steps["ours"]
    assert slow["largest_ms"] >= 400 and "stand_still" in slow["gaps"][0]["stacks"][0]
    assert slow["largest_of_ours_ms"] == 0 and ours["largest_of_ours_ms"] >= 400
    assert above({"steps": watch.steps}, 100.0) == [f"ours: {ours['largest_of_ours_ms']} ms"]


def test_files_of_the_module_are_ours_and_others_are_not() -> None:
    assert measure_freezes._is_ours("util.py:3 load < kept.py:70 read < x.py:1 f")
    assert not measure_freezes._is_ours("qSlicerApplication.py:3 f < measure_freezes.py:70 patiently")


@pytest.mark.skipif(not TORSO.is_file(), reason=f"no CT in {TORSO}")
@pytest.mark.skipif(
    not (find_spec("slicer") and find_spec("PySide6")), reason="slicer-core or PySide6 is not installed"
)
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is tried on POSIX")
def test_the_whole_journey_is_measured_in_the_stand_in(tmp_path: Path) -> None:
    words = ["--stand-in", "--volume", str(TORSO), "--size", "96,96,12", "--output", str(tmp_path / "out.json")]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words], env=environment, check=False, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out.json").read_text("utf-8"))
    steps = ["open the panel", "load", "estimate", "segment", "review", "show in 3D", "make a data set", "add the case"]
    assert list(told["steps"]) == [*steps, "mark the case", "open the case", "make and drag a region"]
    assert told["module_file_ms"] > 0 and told["voxels"] == [96, 96, 12] and told["bars"]["stop_ms"] == 100.0
