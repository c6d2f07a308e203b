"""`apformer models`: what is installed, and changing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from apformer.bundles import ModelLibrary
from cli_samples import CommandLine, save_slices_model
from version_samples import copier


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


@pytest.fixture
def trained(run: CommandLine, tmp_path: Path) -> CommandLine:
    """Beside slices 1.0.0: its version 1.1.0, trained here and not adopted."""
    metrics = {"labels": {"anterior": {"mean_dice": 0.91}}}
    write = copier(tmp_path / "models" / "slices", "slices", "1.1.0", metrics=metrics, parent_version="slices 1.0.0")
    ModelLibrary([tmp_path / "models"]).add_version(write)
    return run


def test_history_shows_the_versions_and_marks_the_active_one(trained: CommandLine) -> None:
    told = trained("models", "history", "slices")
    assert told.status == 0 and told.err == ""
    first, second = told.out.splitlines()[1:]
    assert first.split() == ["*", "1.0.0", "imported"]
    assert second.split()[:2] == ["1.1.0", "trained"] and second.endswith("from slices 1.0.0  anterior 0.9100")
    told = trained("models", "history", "slices", "--json")
    assert [(entry["reference"], entry["active"]) for entry in told.json["versions"]] == [
        ("slices@1.0.0", True),
        ("slices@1.1.0", False),
    ]
    assert told.json["versions"][1]["metrics"] == {"anterior": {"mean_dice": 0.91}}
    assert [change["what"] for change in told.json["log"]] == ["added"] and told.json["problem"] is None


def test_a_version_is_activated_and_rolled_back(trained: CommandLine) -> None:
    assert trained("models", "rollback", "slices").status == 1
    ran = trained("models", "activate", "slices", "1.1.0", "--why", "sharper", "--json")
    assert ran.status == 0 and ran.json["version"] == "1.1.0"
    assert trained("models", "show", "slices", "--json").json["version"] == "1.1.0"
    entry = trained("models", "list", "--json").json["models"][-1]
    assert (entry["version"], entry["origin"], entry["versions"]) == ("1.1.0", "trained", 2)
    assert "slices 1.1.0  (MR, 2D)  trained, one of 2 versions" in trained("models", "list").out
    assert "stands for version 1.0.0" in trained("models", "rollback", "slices").out
    log = trained("models", "history", "slices", "--json").json["log"]
    assert [(change["what"], change["to"], change["why"]) for change in log[1:]] == [
        ("activated", "1.1.0", "sharper"),
        ("rolled back", None, ""),
    ]


def test_one_version_is_shown_verified_exported_and_removed(trained: CommandLine, tmp_path: Path) -> None:
    assert trained("models", "show", "slices@1.1.0", "--json").json["version"] == "1.1.0"
    assert trained("models", "verify", "slices@1.1.0", "--json").json["models"][0]["version"] == "1.1.0"
    written = trained("models", "export", "slices@1.1.0", "-o", tmp_path, "--json").json["file"]
    assert written == str(tmp_path / "slices-1.1.0.zip")
    assert trained("models", "show", "slices@7.0.0").status == 1
    assert trained("models", "remove", "slices@1.0.0").status == 1  # it is active
    assert trained("models", "remove", "slices@1.1.0").status == 0
    assert trained("models", "show", "slices@1.1.0").status == 1
    assert trained("models", "import", written, "--replace").status == 0


def test_a_model_with_versions_is_removed_only_when_all_of_them_are_meant(trained: CommandLine, tmp_path: Path) -> None:
    ran = trained("models", "remove", "slices", "--json")
    assert ran.status == 1 and "--all-versions" in ran.json["error"]["remedy"]
    assert trained("models", "remove", "slices", "--all-versions").status == 0
    assert list((tmp_path / "models").iterdir()) == []


def test_verifying_everything_includes_versions_that_are_not_active(trained: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "models" / ".versions" / "slices" / "1.1.0" / "SHA256SUMS").unlink()
    ran = trained("models", "verify", "--json")
    sound = {model["name"]: model["sound"] for model in ran.json["models"]}
    assert ran.status == 1 and sound["slices"] and not sound["slices@1.1.0"]
    assert "BROKEN" in trained("models", "history", "slices").out


def test_a_name_without_an_active_version_is_listed_with_what_to_do(trained: CommandLine, tmp_path: Path) -> None:
    write = copier(tmp_path / "models" / "slices", "new", "1.0.0")
    ModelLibrary([tmp_path / "models"]).add_version(write)
    ran = trained("models", "list")
    assert ran.status == 0 and "new  (no version is active; see `apformer models history new`)" in ran.out
    assert trained("models", "list", "--json").json["inactive"] == ["new"]
    ran = trained("models", "history", "new")
    assert ran.status == 0 and "models activate new 1.0.0" in ran.err and "1.0.0  trained" in ran.out
    assert trained("models", "verify").status == 0


def test_a_damaged_record_is_told_in_list_and_history(trained: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "models" / ".versions" / "slices" / "active.json").write_text("{")
    assert "slices  BROKEN" in trained("models", "list").out
    ran = trained("models", "history", "slices", "--json")
    assert ran.status == 0 and "activate slices" in ran.json["problem"]["remedy"]
    assert [entry["active"] for entry in ran.json["versions"]] == [False, False]
    assert trained("models", "activate", "slices", "1.0.0").status == 0
    assert trained("models", "history", "slices", "--json").json["problem"] is None
