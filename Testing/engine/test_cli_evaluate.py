"""`apformer evaluate`: two files, two folders, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer.bundles import Label
from apformer.files import write_labels
from apformer.volume import Volume
from bundle_samples import ANATOMY, HIPPOCAMPUS
from cli_samples import CommandLine, save_slices_model, write_image


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def _bar(length: int, value: int = 1) -> np.ndarray:
    """`length` voxels of a label in a row of eight."""
    labels = np.zeros((1, 1, 8), np.uint8)
    labels[..., :length] = value
    return labels


def test_json_of_two_files_has_the_agreed_fields(run: CommandLine, tmp_path: Path) -> None:
    ours = write_image(tmp_path / "p.nii.gz", _bar(2), (1.0, 1.0, 1.0))
    theirs = write_image(tmp_path / "r.nrrd", _bar(4), (1.0, 1.0, 1.0))
    ran = run("evaluate", ours, theirs, "--json")
    assert ran.status == 0
    assert set(ran.json) == {"labels", "mean_dice"}
    score = ran.json["labels"]["1"]
    assert set(score) == {"name", "dice", "hd95_mm", "assd_mm", "volume_ml", "reference_volume_ml"}
    assert score["dice"] == pytest.approx(2 * 2 / 6) == ran.json["mean_dice"]
    assert (score["volume_ml"], score["reference_volume_ml"]) == (pytest.approx(0.002), pytest.approx(0.004))


def test_the_table_shows_the_difference_of_volumes(run: CommandLine, tmp_path: Path) -> None:
    ours = write_image(tmp_path / "p.nii.gz", _bar(2), (10.0, 10.0, 10.0))
    theirs = write_image(tmp_path / "r.nii.gz", _bar(4), (10.0, 10.0, 10.0))
    assert "-2.00" in run("evaluate", ours, theirs).out


def test_names_come_from_the_model_or_from_the_segmentation(run: CommandLine, tmp_path: Path) -> None:
    volume = Volume(_bar(4), np.eye(4))
    labels = [Label(1, "Kidney", (1, 2, 3), ANATOMY, HIPPOCAMPUS)]
    write_labels(tmp_path / "r.seg.nrrd", volume, labels, reference=volume)
    ours = tmp_path / "p.nrrd"
    write_labels(ours, volume, labels, reference=volume)
    assert run("evaluate", ours, tmp_path / "r.seg.nrrd", "--json").json["labels"]["1"]["name"] == "Kidney"
    model = save_slices_model(tmp_path / "slices")
    named = run("evaluate", ours, ours, "--model", model, "--json").json["labels"]
    assert [score["name"] for score in named.values()] == ["anterior", "posterior"]
    assert named["2"]["dice"] == 1.0 and named["2"]["hd95_mm"] is None


def test_folders_are_matched_by_name_and_pooled_by_voxels(run: CommandLine, tmp_path: Path) -> None:
    write_image(tmp_path / "p" / "a.nii.gz", _bar(2))
    write_image(tmp_path / "r" / "a.nrrd", _bar(4))
    write_image(tmp_path / "p" / "b.nii.gz", _bar(8))
    write_image(tmp_path / "r" / "b.nii.gz", _bar(8))
    write_image(tmp_path / "p" / "extra.nii.gz", _bar(8))
    ran = run("evaluate", tmp_path / "p", tmp_path / "r", "--json")
    assert ran.status == 0
    assert [case["case"] for case in ran.json["cases"]] == ["a", "b"]
    pooled = ran.json["pooled"]["labels"]["1"]
    assert pooled["dice"] == pytest.approx(2 * 10 / 22)
    assert pooled["mean_case_dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert ran.json["without_reference"] == ["extra"]
    assert "extra" in ran.err


def test_a_case_without_prediction_or_on_another_grid_fails_and_the_others_are_measured(
    run: CommandLine, tmp_path: Path
) -> None:
    for stem in ("a", "b", "c"):
        write_image(tmp_path / "r" / f"{stem}.nii.gz", _bar(4))
    write_image(tmp_path / "p" / "a.nii.gz", _bar(4))
    write_image(tmp_path / "p" / "b.nii.gz", _bar(4), (3.0, 1.0, 1.0))
    ran = run("evaluate", tmp_path / "p", tmp_path / "r", "--json")
    assert ran.status == 1
    assert ["error" in case for case in ran.json["cases"]] == [False, True, True]
    assert ran.json["failed"] == 2 and ran.json["pooled"]["labels"]["1"]["cases"] == 1


def test_a_folder_against_a_file_is_a_wrong_call(run: CommandLine, tmp_path: Path) -> None:
    assert run("evaluate", tmp_path, write_image(tmp_path / "r.nii.gz", _bar(4))).status == 2


def test_different_grids_exit_with_1(run: CommandLine, tmp_path: Path) -> None:
    ours = write_image(tmp_path / "p.nii.gz", _bar(2))
    theirs = write_image(tmp_path / "r.nii.gz", np.zeros((1, 2, 8), np.uint8))
    ran = run("evaluate", ours, theirs, "--json")
    assert ran.status == 1
    assert "grids differ" in ran.json["error"]["what"]
