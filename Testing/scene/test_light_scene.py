"""The scene room starts as fast as Slicer needs: no network library comes with it, and no Qt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
HEAVY = {"torch", "monai", "SimpleITK", "scipy", "matplotlib", "pydicom", "highdicom", "slicerio"}
QT = {"qt", "ctk", "PySide6", "PythonQt"}


def test_importing_the_scene_room_loads_nothing_heavy_and_no_qt() -> None:
    code = "import json, sys, APFormerSlicerLib.scene; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCES, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert {"slicer", "vtk", "apformer"} <= loaded
    assert not loaded & (HEAVY | QT)
