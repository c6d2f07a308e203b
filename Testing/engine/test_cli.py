"""The command line as a whole: help, usage errors, exit statuses, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from apformer import __version__, cli
from apformer.commands import models
from cli_samples import CommandLine

PACKAGES = Path(cli.__file__).parents[1]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))
    return CommandLine(capsys)


def test_help_imports_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; from apformer.cli import build_parser; build_parser().format_help(); "
        "print([m for m in ('torch', 'SimpleITK', 'numpy', 'matplotlib', 'rich') if m in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", errors="replace", env=environ, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_package_runs_as_a_module() -> None:
    environ = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    done = subprocess.run(
        [sys.executable, "-m", "apformer", "models", "show", "no-such-model", "--json"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environ,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-model" in json.loads(done.stdout)["error"]["what"]
    assert "Traceback" not in done.stderr


def test_version_is_that_of_the_package(run: CommandLine) -> None:
    ran = run("--version")
    assert (ran.status, ran.out.strip()) == (0, f"apformer {__version__}")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["cut"],
        ["segment"],
        ["segment", "a.nii.gz", "--model", "m"],
        ["segment", "a.nii.gz", "-o", "b.nii.gz"],
        ["segment", "a.nii.gz", "-o", "b.nii.gz", "--model", "m", "--device", "gpu"],
        ["segment", "a.nii.gz", "-o", "b.nii.gz", "--model", "m", "--roi", "0:1,0:1"],
        ["segment", "a.nii.gz", "-o", "b.nii.gz", "--model", "m", "--roi", "left"],
        ["segment", "a.nii.gz", "-o", "b.txt", "--model", "m"],
        ["segment", "a.nii.gz", "-o", "b", "--model", "m", "--format", "jpg"],
        ["segment", "a.nii.gz", "-o", "b.nrrd", "--model", "m", "--format", ".nii.gz"],
        ["segment", "a.nii.gz", "b.nii.gz", "-o", "c.nii.gz", "--model", "m"],
        ["segment", "a.nii.gz", "-o", "b", "--model", "m", "--dev", "cpu"],
        ["train", "data", "--config", "a.toml", "-o", "b", "--threads", "0"],
        ["models"],
        ["evaluate", "only-one.nii.gz"],
        ["benchmark"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_with_2_and_says_what_to_do(run: CommandLine, words: list[str]) -> None:
    ran = run(*words)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ") and len(ran.err.strip().splitlines()) == 3
    assert "Traceback" not in ran.err


def test_a_wrong_call_with_json_prints_one_error_object(run: CommandLine) -> None:
    ran = run("segment", "--json")
    assert ran.status == 2
    assert set(ran.json["error"]) == {"what", "meaning", "remedy"}


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_becomes_words_and_a_traceback_only_with_debug(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def explode(*_: object) -> int:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(models, "_list", explode)
    ran = run("models", "list", "--json", *(["--debug"] if debug else []))
    assert ran.status == 1
    assert "ZeroDivisionError: by accident" in ran.json["error"]["what"]
    assert ("Traceback" in ran.err) is debug


def test_exhausted_memory_is_told_as_such(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(models, "_list", explode)
    assert "memory" in run("models", "list", "--json").json["error"]["what"]


def test_ctrl_c_exits_with_130(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_list", interrupt)
    ran = run("models", "list", "--json")
    assert ran.status == 130
    assert "interrupted" in ran.json["error"]["what"]
    assert "Traceback" not in ran.err


def test_what_a_library_prints_stays_out_of_the_json(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    original = models._list

    def noisy(*given: object) -> int:
        print("chatter of a library")
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(models, "_list", noisy)
    ran = run("models", "list", "--json")
    assert "models" in ran.json
    assert "chatter" in ran.err


def test_training_needs_a_folder_of_cases(run: CommandLine, tmp_path: Path) -> None:
    ran = run("train", tmp_path / "none", "--config", "x.toml", "-o", tmp_path / "out", "--json")
    assert ran.status == 1
    assert "is not a folder" in ran.json["error"]["what"]


def test_training_names_a_configuration_that_cannot_be_read(run: CommandLine, tmp_path: Path) -> None:
    ran = run("train", tmp_path, "--config", tmp_path / "none.toml", "-o", tmp_path / "out", "--json")
    assert ran.status == 1
    assert "none.toml" in ran.json["error"]["what"]
    assert not (tmp_path / "out").exists()
