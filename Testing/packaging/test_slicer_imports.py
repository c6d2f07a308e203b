"""What the module, its worker and its scripts can import in Slicer 5.12: what it brings, and what the module installs.

A package that is missing there is noticed by nobody here: the environment of the tests has it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from imports_walk import Import, Walk

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
STARTS = (
    "APFormerSlicer",
    "APFormerSlicerLib.widgets",
    "APFormerSlicerLib.widgets.scripting",
    "apformer.jobs.__main__",
)
COMMANDS, BENCHMARK = "apformer.commands", "apformer.jobs.handlers.benchmark"

# Slicer's own modules, and the names that its Python packages are imported by, from the requirements in
# https://github.com/Slicer/Slicer/tree/main/SuperBuild (commit 028fb319 and, of the last two files, 0a9a310a):
# External_python-dicom-requirements.cmake, -numpy.cmake, -requests-requirements.cmake, -pip.cmake, -setuptools.cmake,
# -extension-manager-requirements.cmake, -extension-manager-ssl-requirements.cmake, -pythonqt-requirements.cmake,
# and External_SimpleITK.cmake. What later versions add (dcmqi, highdicom) is not there in 5.12.
SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "SampleData", "sitkUtils"}
PACKAGES = """
pydicom six PIL retrying dicomweb_client numpy SimpleITK certifi idna charset_normalizer urllib3 requests chardet
couchdb gitdb smmap git jwt wrapt deprecated pycparser cffi nacl github packaging pyparsing pip setuptools pkg_resources
"""
BROUGHT = set(PACKAGES.split())
IMPORT_NAMES = {"pillow": "PIL"}


def required(*files: str) -> set[str]:
    """The names that the packages of the module's lists are imported by."""
    lines = [line for file in files for line in (SOURCES / "Resources" / file).read_text("utf-8").splitlines()]
    names = [re.split(r"[<>=!~ ;\[]", line)[0] for line in lines if line and not line.startswith("#")]
    return {IMPORT_NAMES.get(name.lower(), name) for name in names}


def test_nothing_is_imported_that_slicer_neither_brings_nor_is_given() -> None:
    """Functions of the commands are counted where others use them: their command line is not in Slicer. Nor is the
    benchmark, which `test_nobody_in_slicer_asks_for_a_benchmark` holds."""
    allowed = SLICER | BROUGHT | required("requirements.txt", "requirements-training.txt")
    walk = Walk(SOURCES, by_name=(COMMANDS,), shut=(BENCHMARK,)).from_modules(STARTS)
    lacking = sorted(f"{one.package} ({one.where})" for one in walk.outside if one.package not in allowed)
    assert not lacking
    assert {"apformer.jobs.handlers.store", "apformer.files.nrrd", "apformer.finetuning.session"} <= walk.modules
    assert {"torch", "numpy", "SimpleITK", "monai", "qt"} <= {one.package for one in walk.outside}


def test_what_segments_needs_no_package_of_the_training() -> None:
    only_training = required("requirements-training.txt") - required("requirements.txt") - BROUGHT
    # `apformer.training` loads its loop when `train` is asked for; following asks for other parts of the room
    training = ("apformer.training.run", "apformer.jobs.preflight_finetune", "apformer.jobs.training_work")
    training += ("apformer.finetuning",)
    walk = Walk(SOURCES, by_name=(COMMANDS,), shut=(BENCHMARK, *training)).from_modules(["apformer.jobs.__main__"])
    assert not sorted(f"{one.package} ({one.where})" for one in walk.outside if one.package in only_training)
    assert {"apformer.jobs.handlers.segment", "apformer.following.learning"} <= walk.modules


def test_nobody_in_slicer_asks_for_a_benchmark() -> None:
    for path in (SOURCES / "APFormerSlicerLib").rglob("*.py"):
        assert '"benchmark"' not in path.read_text("utf-8"), path


# ------------------------------------------------------------------ the walk itself


@pytest.fixture
def a_tree(tmp_path: Path) -> Path:
    files = {
        "module.py": "import room.lazy\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import typed\n",
        "room/__init__.py": "import of_the_room",
        "room/lazy.py": "import os\ndef f():\n    from . import deep\n    import importlib\n"
        "    importlib.import_module('by_call.inner')\n    try:\n        import optional\n"
        "    except ImportError:\n        import fallback\n",
        "room/deep.py": "from nrrd.reader import read\nfrom tools.cli import used\n",
        "room/alone.py": "import never",
        "tools/__init__.py": "",
        "tools/cli.py": "import at_top\ndef used():\n    helper()\ndef helper():\n    import of_used\n"
        "def main():\n    import of_main\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_walk_finds_lazy_and_relative_imports_and_those_of_parents(a_tree: Path) -> None:
    walk = Walk(a_tree, by_name=("tools",)).from_modules(["module"])
    found = {one.package for one in walk.outside}
    assert found == {"of_the_room", "nrrd", "by_call", "fallback", "at_top", "of_used"}
    assert Import("nrrd", "room/deep.py:1") in walk.outside and "room.alone" not in walk.modules
    everything = Walk(a_tree).from_modules(["module"])
    assert {one.package for one in everything.outside} == found | {"of_main"}
    assert Walk(a_tree, shut=("room.lazy",)).from_modules(["module"]).outside == set()
