"""Imports between the rooms point one way, and the contracts that say so can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("importlinter", reason="import-linter comes with the test extra")

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(config: Path, sources: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter in a process of its own: it reads the sources it finds first on the path."""
    return subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.fixture
def empty_rooms(tmp_path: Path) -> Path:
    """An engine with every room and nothing in it, under the contracts of this project."""
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    engine = tmp_path / "sources" / "apformer"
    for room in ("networks", "files", "bundles", "datasets", "inference", "training"):
        (engine / room).mkdir(parents=True)
        (engine / room / "__init__.py").touch()
    for file in ("__init__.py", "errors.py", "volume.py", "metrics.py", "cli.py"):
        (engine / file).touch()
    library = tmp_path / "sources" / "APFormerSlicerLib"
    for room in ("scene", "workflow"):
        (library / room).mkdir(parents=True)
        (library / room / "__init__.py").touch()
    (library / "__init__.py").touch()
    return tmp_path


def test_the_rooms_keep_every_contract() -> None:
    done = lint(ROOT / "pyproject.toml", ROOT / "APFormerSlicer")
    assert done.returncode == 0, done.stdout + done.stderr


def test_empty_rooms_keep_every_contract(empty_rooms: Path) -> None:
    done = lint(empty_rooms / "pyproject.toml", empty_rooms / "sources")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "line", "broken"),
    [
        ("volume.py", "import slicer", "The engine knows nothing of Slicer, VTK or Qt"),
        ("inference/__init__.py", "def late():\n    import vtk", "The engine knows nothing of Slicer, VTK or Qt"),
        ("networks/__init__.py", "from apformer import volume", "Inside the engine, imports point down"),
        ("bundles/__init__.py", "from apformer import inference", "Inside the engine, imports point down"),
        ("training/__init__.py", "from apformer import cli", "Inside the engine, imports point down"),
        ("inference/__init__.py", "import monai", "Predicting needs neither MONAI nor the training code"),
        ("bundles/__init__.py", "import apformer.training", "Predicting needs neither MONAI nor the training code"),
    ],
)
def test_an_import_against_the_direction_is_found(empty_rooms: Path, room: str, line: str, broken: str) -> None:
    (empty_rooms / "sources" / "apformer" / room).write_text(line + "\n")
    done = lint(empty_rooms / "pyproject.toml", empty_rooms / "sources")
    assert done.returncode == 1
    assert f"{broken} BROKEN" in done.stdout
