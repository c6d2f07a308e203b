"""`apformer dataset`: from an empty folder to a split, on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from apformer.datasets import SiteDataset
from apformer.datasets.identity import patient_code
from apformer.files import write_scalar
from cli_samples import CommandLine
from dataset_samples import an_image, some_labels
from PIL import Image
from test_datasets_imports import a_decathlon, write


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.fixture
def root(run: CommandLine, tmp_path: Path) -> Path:
    assert run("dataset", "init", tmp_path / "data", "--labels", "Liver,Tumor").status == 0
    return tmp_path / "data"


def test_what_was_made_of_labels_is_told_and_lost_places_are_refused(
    run: CommandLine, root: Path, tmp_path: Path
) -> None:
    image = an_image(1)
    path = write(tmp_path / "i.nrrd", image)
    whole = some_labels(image)
    beside = whole.ijk_to_ras.copy()
    beside[0, 3] += 0.05
    fractions = replace(whole.with_array(whole.array * np.float32(0.996)), ijk_to_ras=beside)
    scaled = tmp_path / "scaled.nrrd"
    write_scalar(scaled, fractions)
    words = ("--patient", "secret", "--json")
    added = run("dataset", "add", root, path, "--labels", scaled, *words)
    assert added.json["voxels"] == {"1": 8}
    assert "rounded" in added.err and "voxels beside the grid" in added.err and len(added.json["notes"]) == 2
    corrected = run("dataset", "correct", root, "case-0001", "--labels", scaled, "--json")
    assert corrected.status == 0 and "rounded" in corrected.err
    far = whole.ijk_to_ras.copy()
    far[:3, 3] += (7.5, 6.0, 9.0)
    moved = write(tmp_path / "moved.nrrd", replace(image, ijk_to_ras=far))
    refused = run("dataset", "add", root, moved, "--labels", write(tmp_path / "lost.nrrd", whole), *words)
    assert refused.status == 1 and "lost" in refused.json["error"]["meaning"]


def test_a_jpeg_mask_is_added_only_when_its_threshold_is_asked_for(run: CommandLine, tmp_path: Path) -> None:
    assert run("dataset", "init", tmp_path / "one", "--labels", "Polyp").status == 0
    disc = (np.hypot(*np.mgrid[-16:16, -16:16]) < 9).astype(np.uint8) * 255
    gray = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "image.png")
    Image.fromarray(disc).save(tmp_path / "mask.jpg", quality=60)
    words = ("dataset", "add", tmp_path / "one", tmp_path / "image.png", "--labels", tmp_path / "mask.jpg", "--json")
    refused = run(*words)
    assert refused.status == 1 and "JPEG" in refused.json["error"]["what"]
    added = run(*words, "--threshold")
    assert added.json["voxels"]["1"] == pytest.approx(np.count_nonzero(disc), rel=0.05) and "half white" in added.err
    pairs = ("dataset", "import-pairs", tmp_path / "one", tmp_path / "image.png", tmp_path / "mask.jpg", "--json")
    assert run(*pairs).status == 1 and run(*pairs, "--threshold").json["unchanged"] == ["case-0001"]


def test_a_case_is_added_corrected_shown_and_removed(run: CommandLine, root: Path, tmp_path: Path) -> None:
    image = write(tmp_path / "i.nii.gz", an_image(1))
    labels = write(tmp_path / "l.nii.gz", some_labels(an_image(1)))
    other = write(tmp_path / "m.nii.gz", some_labels(an_image(1), value=7))
    words = ("--patient", "secret", "--who", "Ann", "--json")
    added = run("dataset", "add", root, image, "--labels", labels, "--proposed-by", "liver 1.0.0", *words).json
    assert added["case"] == "case-0001" and added["status"] == "in progress" and added["voxels"] == {"1": 8}
    again = run("dataset", "add", root, image, "--labels", labels, *words)
    assert again.status == 1 and "case-0001" in again.json["error"]["what"]
    corrected = run("dataset", "add", root, image, "--labels", other, "--map", "7=Tumor", "--correct", *words).json
    assert corrected["version"] == 2 and corrected["status"] == "completed"
    change = ("--restore", "1", "--status", "flagged", "--comment", "why", "--json")
    assert run("dataset", "correct", root, "case-0001", *change).json["version"] == 1
    shown = run("dataset", "show", root, "case-0001", "--json").json
    assert [event["what"] for event in shown["history"]] == ["added", "corrected", "restored"]
    assert "why" in run("dataset", "show", root, "case-0001").out
    assert "flagged" in run("dataset", "list", root).out
    assert run("dataset", "list", root, "--status", "completed", "--json").json["cases"] == []
    assert run("dataset", "remove", root, "case-0001", "--json").json == {"removed": "case-0001"}
    assert "secret" not in (root / "index.json").read_text()


def test_a_dicom_folder_is_added_without_the_files_to_skip(
    run: CommandLine, root: Path, write_dicom: Callable[..., list[Path]], tmp_path: Path
) -> None:
    write_dicom("scan", positions=[(0, 0, z) for z in (0, 2, 4, 8, 10)])  # one is missing: resampled, and told
    (tmp_path / "scan" / "broken.dcm").write_bytes(b"no image")
    assert "broken.dcm" in run("dataset", "add", root, tmp_path / "scan", "--json").json["error"]["what"]
    added = run("dataset", "add", root, tmp_path / "scan", "--skip", "broken.dcm", "--json").json
    assert added["shape_ijk"] == [5, 4, 6]
    dataset = SiteDataset.open(root)
    assert added["patient"] == patient_code("1", dataset.index.salt)  # the PatientID of the samples


def test_import_check_split_and_export(run: CommandLine, root: Path, tmp_path: Path) -> None:
    source = a_decathlon(tmp_path / "source", [f"a{n}" for n in range(3)])
    refused = run("dataset", "import-decathlon", root, source, "--json")
    assert refused.status == 1 and "--add-labels" in refused.json["error"]["remedy"]
    looked_for = ("--outlined", "Liver, Tumor,Spleen")  # the source does not tell of tumours: none was seen
    done = run("dataset", "import-decathlon", root, source, "--add-labels", *looked_for, "--json").json
    assert len(done["added"]) == 3 and done["patients"] == 3 and done["failed"] == []
    checked = run("dataset", "check", root, "--json")
    assert checked.status == 0 and checked.json["ready"]
    assert {"few cases", "rare label"} <= {problem["kind"] for problem in checked.json["problems"]}
    assert "not frozen yet" in run("dataset", "split", root).out
    assert SiteDataset.open(root).split is None
    frozen = run("dataset", "split", root, "--freeze", "--json").json
    assert frozen["kind"] == "folds" and [len(part["validation"]) for part in frozen["rounds"]] == [1, 1, 1]
    out = tmp_path / "out"
    assert len(run("dataset", "export", root, out, "--json").json["cases"]) == 3
    pairs = run("dataset", "import-pairs", root, out / "imagesTr", out / "labelsTr", "--json").json
    assert len(pairs["unchanged"]) == 3


def test_a_data_set_that_cannot_be_trained_on_fails_the_check(run: CommandLine, root: Path) -> None:
    checked = run("dataset", "check", root)
    assert checked.status == 1 and "blocks training" in checked.out and "Complete cases of 3 more" in checked.out
    split = run("dataset", "split", root, "--json")
    assert split.status == 1 and "0 patients" in split.json["error"]["what"]


def test_the_label_table_is_changed_in_words(run: CommandLine, root: Path) -> None:
    added = run("dataset", "add-label", root, "Cyst", "--value", 9, "--color", "#0102ff", "--json").json
    assert (added["value"], added["color"]) == (9, [1, 2, 255])
    assert run("dataset", "rename-label", root, "cyst", "Lesion", "--json").json["name"] == "Lesion"
    assert run("dataset", "add-label", root, "lesion").status == 1
    assert run("dataset", "add-label", root, "X", "--color", "red").status == 2


def test_a_data_set_can_begin_with_the_labels_of_a_model(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli_samples import save_slices_model

    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))
    save_slices_model(tmp_path / "models" / "slices")
    made = run("dataset", "init", tmp_path / "data", "--base", "slices", "--labels", "Cyst", "--json").json
    assert [(label["value"], label["name"]) for label in made["labels"]] == [
        (1, "anterior"),
        (2, "posterior"),
        (3, "Cyst"),
    ]
    checked = run("dataset", "check", tmp_path / "data", "--base", "slices", "--quick", "--json").json
    assert "Cyst is not in slices 1.0.0" in " ".join(problem["what"] for problem in checked["problems"])


def test_wrong_calls_exit_with_2(run: CommandLine, root: Path) -> None:
    assert run("dataset", "correct", root, "case-0001").status == 2
    assert run("dataset", "correct", root, "case-0001", "--labels", "x", "--restore", 1).status == 2
    assert run("dataset", "add", root, "x.nii", "--status", "done").status == 2
    assert run("dataset").status == 2


def test_what_was_outlined_is_said_listed_shown_and_corrected(run: CommandLine, root: Path, tmp_path: Path) -> None:
    image, labels = write(tmp_path / "i.nii.gz", an_image(1)), write(tmp_path / "l.nii.gz", some_labels(an_image(1)))
    words = ("--labels", labels, "--patient", "secret", "--json")
    assert run("dataset", "add", root, image, *words, "--others-unknown").json["labelled"] == [1]
    assert "1 of 2 structures outlined" in run("dataset", "list", root).out
    assert "2 Tumor: not outlined" in run("dataset", "show", root, "case-0001").out
    assert "Tumor in 0" in run("dataset", "check", root).out
    assert run("dataset", "correct", root, "case-0001", "--outlined", "Tumor", "--json").json["labelled"] is None
    shown = run("dataset", "show", root, "case-0001", "--json").json
    assert [version.get("labelled") for version in shown["versions"]] == [[1], None]
    wrong = run("dataset", "correct", root, "case-0001", "--outlined", "Spleen", "--json")
    assert wrong.status == 1 and "no 'Spleen'" in wrong.json["error"]["what"]
    assert run("dataset", "add", root, image, *words, "--outlined", "Tumor", "--others-unknown").status == 2


def test_imports_say_what_was_outlined(run: CommandLine, root: Path, tmp_path: Path) -> None:
    folder = a_decathlon(tmp_path / "source", ["a1"], labels={"0": "background", "2": "Liver"})
    told = run("dataset", "import-decathlon", root, folder, "--json")
    assert told.status == 0 and "does not tell of Tumor" in told.err
    image, labels = write(tmp_path / "i.nii.gz", an_image(7)), write(tmp_path / "l.nii.gz", some_labels(an_image(7)))
    assert run("dataset", "import-pairs", root, image, labels, "--others-unknown", "--json").status == 0
    cases = run("dataset", "list", root, "--json").json["cases"]
    assert [case["labelled"] for case in cases] == [[1], [1]]
