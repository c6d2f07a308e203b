"""`apformer evaluate`: two files, two folders, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer.bundles import Label
from apformer.files import write_labels
from apformer.volume import Roi, Volume
from bundle_samples import ANATOMY, HIPPOCAMPUS
from cli_samples import CommandLine, save_slices_model, write_image
from PIL import Image


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
    assert set(ran.json) == {"labels", "mean_dice", "notes"}
    score = ran.json["labels"]["1"]
    assert set(score) == {"name", "dice", "hd95_mm", "assd_mm", "volume_ml", "reference_volume_ml", "false_positive_ml"}
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
    assert named["2"]["dice"] is None and named["2"]["hd95_mm"] is None


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


def _segmentation(path: Path, row: list[int], names: dict[int, str]) -> Path:
    """A .seg.nrrd of one row of voxels of 1 mm, with a segment per name."""
    volume = Volume(np.array([[row]], np.uint8), np.eye(4))
    labels = [Label(value, name, (1, 2, value), ANATOMY, HIPPOCAMPUS) for value, name in names.items()]
    write_labels(path, volume, labels, reference=volume)
    return path


def test_labels_are_matched_by_name_whatever_their_values(run: CommandLine, tmp_path: Path) -> None:
    ours = _segmentation(tmp_path / "p.seg.nrrd", [1, 1, 2, 0], {1: "head", 2: "  TAIL"})
    theirs = _segmentation(tmp_path / "r.seg.nrrd", [7, 7, 1, 0], {1: "Tail", 7: "Head"})
    ran = run("evaluate", ours, theirs, "--json")
    assert {value: (score["name"], score["dice"]) for value, score in ran.json["labels"].items()} == {
        "1": ("Tail", 1.0),
        "7": ("Head", 1.0),
    }
    assert ran.json["notes"] == [] and ran.err == ""
    by_number = run("evaluate", ours, theirs, "--by-number", "--json").json["labels"]
    assert by_number["1"]["dice"] == 0.0


def test_a_file_without_names_is_compared_by_number_and_told(run: CommandLine, tmp_path: Path) -> None:
    ours = _segmentation(tmp_path / "p.seg.nrrd", [1, 2, 0, 0], {1: "Head", 2: "Tail"})
    plain, theirs = Volume(np.array([[[1, 1, 5, 0]]], np.uint8), np.eye(4)), tmp_path / "r.nrrd"
    write_labels(theirs, plain, [], reference=plain)
    ran = run("evaluate", ours, theirs, "--json")
    assert "The reference does not name its labels: they were compared by number." in ran.json["notes"]
    assert "The label maps have values without a name: 5." in ran.err
    assert ran.json["labels"]["1"] == {**ran.json["labels"]["1"], "name": "Head", "dice": pytest.approx(2 / 3)}
    both = run("evaluate", theirs, theirs, "--json")
    assert both.json["notes"] == ["Neither file names its labels: they were compared by number."]
    named = run("evaluate", ours, theirs, "--labels", "1=Tail", "--json")  # the reference's 1 is the tail
    assert named.json["labels"]["1"]["name"] == "Tail" and named.json["labels"]["1"]["dice"] == pytest.approx(2 / 3)


def test_a_name_that_only_one_side_has_is_told_with_the_choice(run: CommandLine, tmp_path: Path) -> None:
    ours = _segmentation(tmp_path / "p.seg.nrrd", [1, 2, 2, 0], {1: "Head", 2: "left-tail"})
    theirs = _segmentation(tmp_path / "r.seg.nrrd", [1, 2, 2, 0], {1: "head", 2: "Left tail"})
    ran = run("evaluate", ours, theirs, "--json")
    scores = {score["name"]: score for score in ran.json["labels"].values()}
    assert scores["Left tail"]["dice"] == 0.0
    assert scores["left-tail"]["dice"] is None and scores["left-tail"]["false_positive_ml"] == pytest.approx(0.002)
    assert "Only the reference has Left tail" in ran.err and "--map 'left-tail=Left tail'" in ran.err
    mapped = run("evaluate", ours, theirs, "--map", "left-tail=Left tail", "--json")
    assert mapped.json["mean_dice"] == 1.0 and mapped.json["notes"] == []
    wrong = run("evaluate", ours, theirs, "--map", "left-tail=Foot", "--json")
    assert wrong.status == 1 and "no label 'Foot'" in wrong.json["error"]["what"]


def test_names_that_have_nothing_in_common_are_refused_with_the_choice(run: CommandLine, tmp_path: Path) -> None:
    ours = _segmentation(tmp_path / "p.seg.nrrd", [1, 1, 0, 0], {1: "Leber"})
    theirs = _segmentation(tmp_path / "r.seg.nrrd", [1, 1, 0, 0], {1: "Liver"})
    ran = run("evaluate", ours, theirs, "--json")
    assert ran.status == 1 and "same name" in ran.json["error"]["what"]
    assert "Leber=Liver" in ran.json["error"]["remedy"] and "--by-number" in ran.json["error"]["remedy"]
    assert run("evaluate", ours, theirs, "--by-number", "--json").json["mean_dice"] == 1.0
    assert run("evaluate", ours, theirs, "--map", "Leber=Liver", "--json").json["mean_dice"] == 1.0


def test_two_segments_of_one_name_are_refused(run: CommandLine, tmp_path: Path) -> None:
    path = _segmentation(tmp_path / "p.seg.nrrd", [1, 2, 0, 0], {1: "Head", 2: "head"})
    ran = run("evaluate", path, path, "--json")
    assert ran.status == 1 and "'Head' and 'head'" in ran.json["error"]["what"]


def test_cases_whose_numbers_differ_are_pooled_by_name(run: CommandLine, tmp_path: Path) -> None:
    for folder in ("p", "r"):
        (tmp_path / folder).mkdir()
        _segmentation(tmp_path / folder / "a.seg.nrrd", [1, 1, 0, 0], {1: "Head", 2: "Tail"})
    _segmentation(tmp_path / "p" / "b.seg.nrrd", [3, 0, 0, 1], {3: "Head", 1: "Tail"})
    _segmentation(tmp_path / "r" / "b.seg.nrrd", [5, 5, 0, 0], {5: "Head", 2: "Tail"})
    report = run("evaluate", tmp_path / "p", tmp_path / "r", "--json").json
    pooled = {score["name"]: score for score in report["pooled"]["labels"].values()}
    assert pooled["Head"]["dice"] == pytest.approx(2 * 3 / 7) and pooled["Head"]["cases"] == 2
    assert pooled["Tail"]["dice"] is None and pooled["Tail"]["mean_case_dice"] is None
    assert pooled["Tail"]["false_positive_ml"] == pytest.approx(0.001) and pooled["Tail"]["false_positive_cases"] == 1
    shown = run("evaluate", tmp_path / "p", tmp_path / "r").out
    assert "found where the reference has none: Tail 0.00 mL" in shown
    assert next(line.split() for line in shown.splitlines() if "Tail" in line) == ["2", "Tail", "2", "-", "-", "-", "-"]


def test_a_part_of_the_grid_and_turned_axes_are_compared_in_their_place(run: CommandLine, tmp_path: Path) -> None:
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, 2, 1:4] = 1
    whole = Volume(array, np.diag([1.0, 2.0, 3.0, 1.0]))
    labels = [Label(1, "Head", (1, 2, 3), ANATOMY, HIPPOCAMPUS)]
    part = whole.oriented("LPS").cropped(Roi((0, 1, 1), (5, 3, 2)))
    write_labels(tmp_path / "r.nrrd", whole, labels, reference=whole)
    write_labels(tmp_path / "p.seg.nrrd", part, labels, reference=part)
    for pair in (("p.seg.nrrd", "r.nrrd"), ("r.nrrd", "p.seg.nrrd")):
        ran = run("evaluate", *(tmp_path / name for name in pair), "--json")
        assert ran.json["mean_dice"] == 1.0 and ran.json["labels"]["1"]["volume_ml"] == pytest.approx(0.018)


def test_a_jpeg_mask_is_thresholded_only_when_asked(run: CommandLine, tmp_path: Path) -> None:
    disc = (np.hypot(*np.mgrid[-16:16, -16:16]) < 9).astype(np.uint8) * 255
    Image.fromarray(disc).save(tmp_path / "mask.jpg", quality=70)
    Image.fromarray(disc).save(tmp_path / "mask.png")
    refused = run("evaluate", tmp_path / "mask.jpg", tmp_path / "mask.png", "--json")
    assert refused.status == 1 and "JPEG" in refused.json["error"]["what"]
    assert "PNG" in refused.json["error"]["remedy"] and "--threshold" in refused.json["error"]["remedy"]
    ran = run("evaluate", tmp_path / "mask.jpg", tmp_path / "mask.png", "--threshold", "--json")
    assert ran.json["labels"]["255"]["dice"] == pytest.approx(1.0, abs=0.02)
    assert any("half white" in note for note in ran.json["notes"])


def test_the_shared_segmentations_with_swapped_values_agree(run: CommandLine, cases_root: Path) -> None:
    folder = cases_root / "05-evaluate-names"
    ran = run("evaluate", folder / "pred.seg.nrrd", folder / "ref.seg.nrrd", "--json")
    assert {score["name"]: score["dice"] for score in ran.json["labels"].values()} == {"Anterior": 1, "Posterior": 1}
