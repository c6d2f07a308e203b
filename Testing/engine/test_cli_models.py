"""`apformer models`: what is installed, and changing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_samples import CommandLine, save_slices_model


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))
    save_slices_model(tmp_path / "models" / "slices")
    return CommandLine(capsys)


def _damage(models: Path) -> None:
    weights = models / "slices" / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


def test_list_tells_sound_models_from_broken_ones(run: CommandLine, tmp_path: Path) -> None:
    entries = {entry["name"]: entry for entry in run("models", "list", "--json").json["models"]}
    assert entries["slices"]["version"] == "1.0.0" and entries["slices"]["problem"] is None
    assert entries["slices"]["labels"][0]["name"] == "anterior"
    _damage(tmp_path / "models")
    ran = run("models", "list")
    assert ran.status == 0 and "slices  BROKEN" in ran.out


def test_show_prints_the_card(run: CommandLine) -> None:
    assert "# A test model" in run("models", "show", "slices").out
    shown = run("models", "show", "slices", "--json").json
    assert shown["card"].startswith("# A test model") and shown["metadata"]["data_licence"] == "CC0 1.0"


def test_verify_exits_with_1_for_a_damaged_model(run: CommandLine, tmp_path: Path) -> None:
    assert run("models", "verify", "slices").status == 0
    _damage(tmp_path / "models")
    ran = run("models", "verify", "slices", "--json")
    assert ran.status == 1
    assert ran.json["models"][0]["sound"] is False and "error" in ran.json["models"][0]


def test_a_model_leaves_as_a_zip_and_comes_back(run: CommandLine, tmp_path: Path) -> None:
    zipped = tmp_path / "s.zip"
    assert run("models", "export", "slices", "-o", zipped, "--json").json["file"] == str(zipped)
    assert run("models", "import", zipped).status == 1  # it is still installed
    assert run("models", "remove", "slices").status == 0
    assert not (tmp_path / "models" / "slices").exists()
    assert run("models", "import", zipped, "--json").json["name"] == "slices"
    assert run("models", "import", zipped, "--replace").status == 0


def test_an_unknown_model_and_a_file_that_is_no_zip_exit_with_1(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no zip")
    for words in (["show", "none"], ["remove", "none"], ["export", "none"], ["import", str(tmp_path / "x.zip")]):
        ran = run("models", *words, "--json")
        assert ran.status == 1 and ran.json["error"]["remedy"]
