"""Small inputs on which an earlier version was wrong, one of each kind, through the command line: what is right there.

The kinds have tests of their own, on inputs that they make, beside the code that they are about.
"""

from __future__ import annotations

import gzip
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.files import read_volume
from apformer.training.cases import Case, read_case
from apformer.volume import Volume
from cli_samples import CommandLine, Ran

HIPPOCAMPUS = ("Anterior hippocampus", "Posterior hippocampus")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def found_ml(ran: Ran) -> dict[str, float]:
    """Volumes by name in the report of one image."""
    assert ran.status == 0, ran.err
    return {name: float(ml) for name, ml in re.findall(r"^\s+(.+): ([0-9.]+) mL$", ran.out, re.MULTILINE)}


def test_every_kind_has_its_test(cases_root: Path) -> None:
    here = Path(__file__).read_text("utf-8")
    missing = [folder.name for folder in cases_root.iterdir() if folder.is_dir() and folder.name not in here]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("01-nifti-qform-sform/qform1-sform2.nii.gz", "two places that differ by 12.0 degrees and 26.2 mm"),
        ("02-nifti-no-orientation/noform.nii.gz", "no orientation"),
    ],
)
def test_a_mask_has_the_place_of_its_nifti_image_for_every_program(
    run: CommandLine, cases_root: Path, tmp_path: Path, name: str, words: str
) -> None:
    ran = run("segment", cases_root / name, "--model", "hippocampus-mr", "-o", tmp_path / "mask.nii.gz")

    assert words in ran.err
    assert found_ml(ran) == {HIPPOCAMPUS[0]: pytest.approx(1.9, abs=0.2), HIPPOCAMPUS[1]: pytest.approx(1.6, abs=0.2)}
    image, mask = (gzip.decompress(path.read_bytes()) for path in (cases_root / name, tmp_path / "mask.nii.gz"))
    for part in (slice(76, 92), slice(252, 328)):  # voxel sizes; codes and forms
        assert mask[part] == image[part]


def test_names_in_utf_8_stay_and_are_one_however_they_are_composed(
    run: CommandLine, cases_root: Path, tmp_path: Path
) -> None:
    path = cases_root / "03-unicode-segment-names" / "german.seg.nrrd"
    other = tmp_path / "decomposed.seg.nrrd"
    other.write_bytes(path.read_bytes().replace("Ü".encode(), "U\u0308".encode()))

    labels = run("evaluate", path, other, "--json").json["labels"]

    found = {unicodedata.normalize("NFC", label["name"]): label["dice"] for label in labels.values()}
    assert found == {"Übergangszone": 1, "Posterior": 1}


def test_segmentations_of_old_slicers_are_read(run: CommandLine, cases_root: Path) -> None:
    path = cases_root / "04-old-seg-nrrd" / "old.seg.nrrd"
    labels = run("evaluate", path, path, "--json").json["labels"]
    assert {label["name"]: round(label["volume_ml"], 3) for label in labels.values()} == {
        "Anterior": 1.881,
        "Posterior": 1.636,
    }


def test_labels_are_compared_by_name(run: CommandLine, cases_root: Path) -> None:
    folder = cases_root / "05-evaluate-names"
    ran = run("evaluate", folder / "pred.seg.nrrd", folder / "ref.seg.nrrd", "--json")
    assert {label["name"]: label["dice"] for label in ran.json["labels"].values()} == {"Anterior": 1, "Posterior": 1}


def centre_ras(labels: Volume) -> np.ndarray:
    """Of all labelled voxels, in mm."""
    return labels.ijk_to_ras[:3] @ [*np.argwhere(labels.array)[:, ::-1].mean(axis=0), 1]


def test_labels_in_another_orientation_are_learned_where_they_are(cases_root: Path) -> None:
    folder = cases_root / "06-train-label-orientation" / "set"
    turned = 0
    for number, image in enumerate(sorted((folder / "imagesTr").iterdir())):
        stored = read_volume(folder / "labelsTr" / image.name)
        learned = read_case(Case(image.stem, image.stem, number, image, folder / "labelsTr" / image.name))
        np.testing.assert_allclose(centre_ras(learned.label), centre_ras(stored), atol=1e-4)
        assert learned.label.spatial_shape == learned.image.spatial_shape
        turned += stored.orientation != learned.image.orientation
    assert turned > 0


def test_a_ct_with_an_offset_is_not_segmented_without_a_word(
    run: CommandLine, cases_root: Path, tmp_path: Path
) -> None:
    path = cases_root / "09-ct-offset" / "hu-plus-1024.nii.gz"
    ran = run("segment", path, "--model", "liver-ct", "-o", tmp_path / "liver.nii.gz")
    assert "1024" in ran.err + ran.out


def test_micrometres_read_as_millimetres_are_an_error_with_a_remedy(
    run: CommandLine, cases_root: Path, tmp_path: Path
) -> None:
    path = cases_root / "10-implausible-spacing" / "micrometres-as-mm.nii.gz"
    ran = run("segment", path, "--model", "hippocampus-mr", "-o", tmp_path / "mask.nii.gz")
    assert ran.status == 1
    assert "micrometre" in ran.err
    assert not list(tmp_path.iterdir())


def test_slices_that_share_a_uid_are_no_copies(cases_root: Path) -> None:
    volume = read_volume(cases_root / "11-same-sop-uid" / "series")
    assert volume.spatial_shape[0] == 12
    assert any("share a SOPInstanceUID" in note for note in volume.notes)


def test_a_localizer_in_a_series_is_left_out_by_name(run: CommandLine, cases_root: Path, tmp_path: Path) -> None:
    folder = cases_root / "12-extra-slice" / "localizer-in-series"
    ran = run("segment", folder, "--model", "hippocampus-mr", "-o", tmp_path / "m.nrrd")
    assert ran.status == 0
    assert re.search(r"\d{3}\.dcm", ran.err)
    assert read_volume(tmp_path / "m.nrrd").spatial_shape[0] == len(list(folder.iterdir())) - 1


def test_one_slice_twice_is_named_and_can_be_skipped(run: CommandLine, cases_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(cases_root / "12-extra-slice" / "one-slice-twice", folder)
    ran = run("segment", folder, "--model", "hippocampus-mr", "-o", tmp_path / "m.nrrd")
    named = re.findall(r"\d{3}\.dcm", ran.err)
    assert named
    if ran.status:  # two different pictures of one place: a person has to choose
        again = run("segment", folder, "--model", "hippocampus-mr", "-o", tmp_path / "m.nrrd", "--skip", named[0])
        assert again.status == 0, again.err
    assert read_volume(tmp_path / "m.nrrd").spatial_shape[0] == len(list(folder.iterdir())) - 1


def test_labels_that_scaling_has_touched_are_whole_numbers_again(
    run: CommandLine, cases_root: Path, tmp_path: Path
) -> None:
    folder = cases_root / "14-scaled-labels"
    assert run("dataset", "init", tmp_path / "site", "--base", "hippocampus-mr").status == 0
    words = ("dataset", "add", tmp_path / "site", folder / "image.nii.gz", "--labels", folder / "labels.nii.gz")
    ran = run(*words, "--patient", "P1")
    assert ran.status == 0, ran.err
    assert "whole numbers" in ran.err + ran.out


@pytest.mark.parametrize("labels", ["labels-origin-lost.nrrd", "labels-0.02mm.nrrd"])
def test_labels_a_little_beside_the_image_are_told_of_and_lost_ones_never_shifted_silently(
    run: CommandLine, cases_root: Path, tmp_path: Path, labels: str
) -> None:
    folder = cases_root / "15-lost-origin"
    assert run("dataset", "init", tmp_path / "site", "--base", "hippocampus-mr").status == 0
    ran = run(
        "dataset", "add", tmp_path / "site", folder / "image.nrrd", "--labels", folder / labels, "--patient", "P1"
    )
    told = ran.err + ran.out
    if "lost" in labels:
        assert "origin" in told
    else:
        assert ran.status == 0, told
        assert "0.02" in told


def test_a_sequence_in_one_file_is_several_volumes(run: CommandLine, cases_root: Path, tmp_path: Path) -> None:
    path = cases_root / "18-sequence-nrrd" / "three-times.seq.nrrd"
    ran = run("segment", path, "--model", "hippocampus-mr", "-o", tmp_path / "m.nrrd")
    assert ran.status == 1
    assert "several volumes" in ran.err


def test_a_jpeg_is_no_mask_unless_somebody_says_so(run: CommandLine, cases_root: Path, tmp_path: Path) -> None:
    folder = cases_root / "20-picture-labels"
    ran = run("evaluate", folder / "mask.jpg", folder / "mask.jpg")
    assert ran.status == 1
    assert "JPEG changes values" in ran.err or "JPEG" in ran.err


def test_padding_is_no_anatomy(run: CommandLine, cases_root: Path, data_root: Path, tmp_path: Path) -> None:
    padded = cases_root / "25-pixel-padding" / "series"
    ran = run("segment", padded, "--model", "hippocampus-mr", "-o", tmp_path / "m.nrrd")
    assert "padding" in ran.err
    clean = run(
        "segment", data_root / "dicom" / "hippocampus-crop", "--model", "hippocampus-mr", "-o", tmp_path / "c.nrrd"
    )
    ours, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))) > 0 for name in ("m.nrrd", "c.nrrd"))
    assert clean.status == 0
    assert min(found_ml(ran).values()) > 1
    assert abs(np.count_nonzero(ours) / np.count_nonzero(theirs) - 1) < 0.1


def test_two_acquisitions_in_one_series_are_two_volumes(run: CommandLine, cases_root: Path, tmp_path: Path) -> None:
    folder = cases_root / "26-interleaved-acquisitions" / "series"
    ran = run("segment", folder, "--model", "hippocampus-mr", "-o", tmp_path / "m.nrrd")
    assert ran.status == 1
    assert "acquisition" in ran.err.lower()
    chosen = re.findall(r"(\S+#\S+|\S+) \(", ran.err)
    assert chosen
