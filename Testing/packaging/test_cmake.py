"""The extension as Slicer's build installs it: nothing missing, nothing left over, and the engine runs from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "APFormerSlicer"
STAND_IN = Path(__file__).parent / "slicer_stand_in"
SCRIPTED_MODULES = Path("lib") / "Slicer-5.12" / "qt-scripted-modules"
ICON = "APFormerSlicer/Resources/Icons/APFormerSlicer.png"
BUILD_ONLY = {"CMakeLists.txt"}

cmake = pytest.mark.skipif(
    not shutil.which("cmake") or not (sys.platform == "win32" or shutil.which("cc")),
    reason="CMake and a compiler for it to try are not installed",
)


def files(folder: Path) -> set[str]:
    """Every file under a folder, without what Python and the desktop leave there."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.suffix != ".pyc" and not any(p[0] == "." for p in path.parts)}


def run(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """Run a command and return what it prints; the test fails with its own words when it does."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def configure(source: Path, build: Path) -> None:
    run("cmake", "-S", source, "-B", build, f"-DSlicer_DIR={STAND_IN.as_posix()}", "-DCMAKE_BUILD_TYPE=Release")


def build_and_install(build: Path, prefix: Path) -> Path:
    """Build and install; the folder that Slicer searches for scripted modules."""
    run("cmake", "--build", build, "--config", "Release")
    run("cmake", "--install", build, "--config", "Release", "--prefix", prefix)
    return prefix / SCRIPTED_MODULES


def setting(name: str) -> str:
    """A variable that the top CMakeLists.txt sets to one string, read as the Extensions Index reads it."""
    found = re.findall(rf'set\s*\({name}\s+"([^"]+)"\)', (ROOT / "CMakeLists.txt").read_text("utf-8"))
    assert len(found) == 1, f"{name} is set {len(found)} times"
    return found[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed module, in a folder with a blank and letters beyond ASCII as Windows users have."""
    folder = tmp_path_factory.mktemp("Slicer é")
    configure(ROOT, folder / "build")
    return build_and_install(folder / "build", folder / "Slicer 5.12")


@cmake
def test_every_file_of_the_module_is_installed_and_no_other(installed: Path) -> None:
    models = {f"Resources/Models/{name}" for name in files(ROOT / "Resources" / "Models")}
    assert files(installed) == files(MODULE) - BUILD_ONLY | models


@cmake
def test_slicer_finds_one_module_in_the_installed_folder(installed: Path) -> None:
    assert [path.name for path in installed.glob("*.py")] == ["APFormerSlicer.py"], "Slicer loads each as a module"


@cmake
def test_the_installed_engine_finds_its_models_and_segments(installed: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
from apformer import __file__ as engine
from apformer.bundles import ModelLibrary
from apformer.bundles.library import bundled_models
from apformer.inference import Segmenter
from apformer.volume import Volume

home = Path(sys.argv[1]).resolve()
assert Path(engine).is_relative_to(home), engine
assert bundled_models() == [home / "Resources" / "Models"], bundled_models()
library = ModelLibrary()
bundle = library.find("hippocampus-mr")
assert bundle.directory.is_relative_to(home), bundle.directory
array = np.random.default_rng(0).normal(100, 20, (20, 24, 16)).astype(np.float32)
result = Segmenter(bundle, device="cpu").segment(Volume(array, np.eye(4)))
assert result.labels.array.shape == array.shape
print("names", *sorted(card.name for card in library.list()))
"""
    (tmp_path / "check.py").write_text(code, "utf-8")
    environ = {"PYTHONPATH": str(installed), "APFORMER_MODELS": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}
    told = run(sys.executable, tmp_path / "check.py", installed, cwd=tmp_path, **environ)
    bundled = sorted(path.parent.name for path in (ROOT / "Resources" / "Models").glob("*/SHA256SUMS"))
    assert told.splitlines()[-1].split() == ["names", *bundled]


@cmake
def test_a_file_that_comes_later_is_installed_by_the_next_build(tmp_path: Path) -> None:
    """In a small copy: the lists are read again by the build itself, without being asked."""
    source = tmp_path / "source"
    for name in ("CMakeLists.txt", "APFormerSlicer/CMakeLists.txt"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for name in ("APFormerSlicer.py", "apformer/__init__.py", "APFormerSlicerLib/__init__.py"):
        (source / "APFormerSlicer" / name).parent.mkdir(exist_ok=True)
        (source / "APFormerSlicer" / name).touch()
    (source / "Resources" / "Models").mkdir(parents=True)
    configure(source, tmp_path / "build")
    first = files(build_and_install(tmp_path / "build", tmp_path / "first"))
    late = {"apformer/late.py", "APFormerSlicerLib/web/late.css", "Resources/Icons/late.svg"}
    for name in late:
        (source / "APFormerSlicer" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "APFormerSlicer" / name).touch()
    assert files(build_and_install(tmp_path / "build", tmp_path / "second")) == first | late


@cmake
def test_a_module_file_that_is_missing_stops_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("CMakeLists.txt", "APFormerSlicer/CMakeLists.txt"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    with pytest.raises(AssertionError, match=r"no file APFormerSlicer\.py"):
        configure(source, tmp_path / "build")


def test_the_index_entry_has_the_fields_of_the_catalogue_and_no_others() -> None:
    """Slicer/Slicer: Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json."""
    entry = json.loads((ROOT / "APFormer.json").read_text("utf-8"))
    required = {"$schema", "category", "scm_url"}
    optional = {"scm_revision", "scm_type", "build_dependencies", "build_subdirectory", "enabled", "tier"}
    assert required <= set(entry) <= required | optional | {"dicom_support_rule"}
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    texts = {name: value for name, value in entry.items() if name not in ("build_dependencies", "tier", "enabled")}
    assert all(isinstance(value, str) for value in texts.values()) and type(entry["tier"]) is int
    assert all(isinstance(name, str) for name in entry["build_dependencies"])
    assert entry["tier"] == 1 and entry["scm_url"].startswith("https://")
    assert "slicer" in entry["scm_url"].rpartition("/")[2].lower(), "the index asks for it in a repository's name"


def test_the_index_entry_and_the_project_tell_the_same() -> None:
    entry = json.loads((ROOT / "APFormer.json").read_text("utf-8"))
    project = re.findall(r"^project\s*\(\s*(\w+)", (ROOT / "CMakeLists.txt").read_text("utf-8"), re.MULTILINE)
    assert project == ["APFormer"], "the index wants the name of its file"
    assert setting("EXTENSION_CATEGORY") == entry["category"] == "Segmentation"
    assert setting("EXTENSION_HOMEPAGE") == entry["scm_url"].removesuffix(".git")
    depends = re.search(r'EXTENSION_DEPENDS "([^"]+)"', (ROOT / "CMakeLists.txt").read_text("utf-8"))
    assert depends and depends.group(1).split() == entry["build_dependencies"] == ["PyTorch"]


def test_the_project_has_one_address() -> None:
    """What publishing it elsewhere changes: the repository in APFormer.json, and what follows from it."""
    address = json.loads((ROOT / "APFormer.json").read_text("utf-8"))["scm_url"].removesuffix(".git")
    named = address.removeprefix("https://github.com/")
    texts = {name: (ROOT / name).read_text("utf-8") for name in ("APFormer.json", "CMakeLists.txt")}
    hosts = r"https://(?:raw\.githubusercontent|github)\.com/([\w.-]+/[\w-]+)"
    found = {name: set(re.findall(hosts, text)) - {"Slicer/Slicer"} for name, text in texts.items()}
    assert found == {"APFormer.json": {named}, "CMakeLists.txt": {named}}


@pytest.mark.parametrize("name", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_the_pictures_of_the_catalogue_are_in_the_repository(name: str) -> None:
    entry = json.loads((ROOT / "APFormer.json").read_text("utf-8"))
    repository = entry["scm_url"].removesuffix(".git").replace("github.com", "raw.githubusercontent.com")
    for url in setting(name).split():
        start = f"{repository}/{entry['scm_revision']}/"
        assert url.startswith(start) and (ROOT / url.removeprefix(start)).is_file(), url


def test_the_icon_has_the_size_that_the_catalogue_asks() -> None:
    head = (ROOT / ICON).read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (128, 128)
    assert setting("EXTENSION_ICONURL").endswith("/main/" + ICON)


def test_nothing_of_the_extension_template_is_left() -> None:
    leftovers = re.compile(
        r"TemplateKey|AnyWare|John Doe|Jane Roe|example\.com|## NEXT_MODULE|FILLME|TODO", re.IGNORECASE
    )
    for name in (
        "CMakeLists.txt",
        "APFormer.json",
        "APFormerSlicer/CMakeLists.txt",
        "APFormerSlicer/APFormerSlicer.py",
    ):
        found = leftovers.search((ROOT / name).read_text("utf-8"))
        assert not found, f"{name}: {found}"
