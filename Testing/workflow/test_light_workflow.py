"""The workflow room starts as fast as Slicer needs: no network library comes with it, and no Qt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
HEAVY = {"torch", "monai", "SimpleITK", "scipy", "matplotlib", "pydicom", "highdicom", "slicerio"}
QT = {"qt", "ctk", "PySide6", "PythonQt"}


def loaded_after(code: str) -> set[str]:
    """Top-level names of what a fresh process has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import json, sys; print(json.dumps(sorted(sys.modules)))"],
        cwd=SOURCES,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_the_room_and_listing_the_models_loads_nothing_heavy_and_no_qt() -> None:
    code = "import slicer, tempfile; from pathlib import Path; from APFormerSlicerLib.workflow import *; "
    code += "w = Workflow(slicer.vtkMRMLScene(), HeadlessWorker(Path(tempfile.gettempdir()))); "
    code += "w.models.cards(); w.versions.rows('liver-ct'); w.close()"
    loaded = loaded_after(code)
    assert {"slicer", "vtk", "apformer"} <= loaded
    assert not loaded & (HEAVY | QT)
