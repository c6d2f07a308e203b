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


ROOMS = ("inference", "bundles", "files", "volume", "networks")
# Of each room as if it alone were imported: what came with it is forgotten before the next one. What torch, NumPy and
# SimpleITK load by themselves is there before, and their start, the slowest part by far, is waited for once.
LOAD_EACH = """
import importlib, json, sys, torch, numpy, SimpleITK
before, loaded = set(sys.modules), {}
for room in sys.argv[1:]:
    importlib.import_module(f"apformer.{room}")
    loaded[room] = sorted(set(sys.modules) - before)
    for name in loaded[room]:
        del sys.modules[name]
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def modules_of() -> dict[str, set[str]]:
    """By room, the modules that importing it loads in an interpreter that has torch, NumPy and SimpleITK."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EACH, *ROOMS],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {room: set(names) for room, names in json.loads(done.stdout).items()}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_that_predicting_uses_loads_nothing_heavy(modules_of: dict[str, set[str]], room: str) -> None:
    loaded = modules_of[room]
    assert f"apformer.{room}" in loaded
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | HOSTS)


def test_predicting_does_not_load_the_training_room(modules_of: dict[str, set[str]]) -> None:
    assert "apformer.training" not in modules_of["inference"]


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
