"""Predicting starts fast and needs little: what `import apformer.inference` really loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
HEAVY = {"monai", "matplotlib", "pydicom", "highdicom", "slicerio", "rich", "scipy", "PIL", "requests"}
HOSTS = {"slicer", "vtk", "qt", "ctk", "PySide6"}


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after the statement, in a fresh interpreter, less those torch loads by itself."""
    code = "import json, sys, torch, numpy, SimpleITK; before = set(sys.modules); "
    code += f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("room", ["inference", "bundles", "files", "volume", "networks"])
def test_a_room_that_predicting_uses_loads_nothing_heavy(room: str) -> None:
    loaded = modules_loaded_by(f"import apformer.{room}")
    assert "apformer" in loaded
    assert not loaded & (HEAVY | HOSTS)


def test_predicting_does_not_load_the_training_room() -> None:
    code = "import sys, apformer.inference; sys.exit('apformer.training' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCES)}, check=False)
    assert done.returncode == 0


def test_corrections_are_followed_without_monai() -> None:
    """A user who only corrects has not installed what training needs."""
    code = "import sys; sys.modules['monai'] = None; import apformer.following.follow"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCES)}, check=False)
    assert done.returncode == 0


def test_a_data_set_is_listed_without_the_library_that_reads_images() -> None:
    """It takes a moment to load, and a window shows the cases."""
    code = (
        "import sys, apformer.datasets, apformer.files; print([n for n in ('SimpleITK', 'torch') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert done.stdout.strip() == b"[]"
