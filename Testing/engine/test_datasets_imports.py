"""Data sets of others come in by the names of their labels, case by case, and go out again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.datasets import SiteDataset, export_decathlon, import_cases, read_decathlon, read_pairs
from apformer.datasets.channels import write_channels_nifti
from apformer.datasets.table import make_table
from apformer.errors import ConfigError, OutputError
from apformer.files import read_volume, write_labels
from apformer.volume import Volume
from dataset_samples import GRID, a_dataset, add_case, an_image, assert_sound, some_labels


def write(path: Path, volume: Volume) -> Path:
    write_labels(path, volume, (), reference=volume)
    return path


def a_decathlon(folder: Path, stems: list[str], **changes: Any) -> Path:
    """Images of noise; label 2 is called Liver there."""
    for seed, stem in enumerate(stems):
        image = an_image(seed)
        write(folder / "imagesTr" / f"{stem}.nii.gz", image)
        write(folder / "labelsTr" / f"{stem}.nii.gz", some_labels(image, value=2))
    described = {
        "name": "Made up",
        "licence": "CC0 1.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Spleen", "2": "Liver"},
        "training": [{"image": f"./imagesTr/{s}.nii.gz", "label": f"./labelsTr/{s}.nii.gz"} for s in stems],
    }
    (folder / "dataset.json").write_text(json.dumps(described | changes))
    return folder


def test_labels_of_a_decathlon_folder_are_matched_by_name(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Liver,Tumor")
    source = read_decathlon(a_decathlon(tmp_path / "source", ["a1", "a2"]))
    with pytest.raises(ConfigError, match="Spleen") as caught:
        import_cases(dataset, source)
    assert "--add-labels" in caught.value.remedy and dataset.cases() == []
    report = import_cases(dataset, source, add_labels=True)
    assert report.added == ["case-0001", "case-0002"] and report.failed == {}
    assert [(label.value, label.name) for label in dataset.labels] == [(1, "Liver"), (2, "Tumor"), (3, "Spleen")]
    case = dataset.case("case-0001")
    assert case.revision is not None and case.revision.counts == {1: 8}
    assert (case.modality, case.collection, case.licence) == ("MR", "Made up", "CC0 1.0")
    assert np.array_equal(read_volume(case.image_path).array, an_image(0).array)


def test_a_second_import_adds_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Liver,Spleen")
    folder = a_decathlon(tmp_path / "source", ["a1", "a2"])
    import_cases(dataset, read_decathlon(folder))
    image = an_image(0)
    write(folder / "labelsTr" / "a1.nii.gz", some_labels(image, value=1))
    report = import_cases(dataset, read_decathlon(folder))
    assert report.unchanged == ["case-0002"] and list(report.failed) == ["a1"] and report.added == []
    assert "--correct" in report.failed["a1"].remedy
    report = import_cases(dataset, read_decathlon(folder), correct=True)
    assert report.corrected == ["case-0001"] and dataset.case("case-0001").current == 2


def test_a_case_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Liver,Spleen")
    folder = a_decathlon(tmp_path / "source", ["a1", "a2", "a3"])
    (folder / "imagesTr" / "a2.nii.gz").write_bytes(b"\x1f\x8bnonsense")
    report = import_cases(dataset, read_decathlon(folder))
    assert report.added == ["case-0001", "case-0002"] and list(report.failed) == ["a2"]
    assert_sound(dataset)


def test_slices_of_one_patient_are_grouped_and_that_is_told(tmp_path: Path) -> None:
    stems = [f"liver_{patient}_{k}" for patient in (1, 2, 3) for k in (1, 2)]
    source = read_decathlon(a_decathlon(tmp_path / "source", stems))
    dataset = a_dataset(tmp_path / "data", labels="Liver,Spleen")
    report = import_cases(dataset, source)
    assert len({case.patient for case in dataset.cases()}) == 3 and "3 patients" in report.notes[0]
    apart = a_dataset(tmp_path / "apart", labels="Liver,Spleen")
    assert import_cases(apart, source, patient_pattern=".+").notes == []
    assert len({case.patient for case in apart.cases()}) == 6


def test_channels_along_the_fourth_axis_are_read(tmp_path: Path) -> None:
    folder = a_decathlon(tmp_path / "source", ["a1"], modality={"0": "T1", "1": "T2"})
    image = an_image(0)
    several = Volume(np.stack([image.array, image.array + 1]), GRID)
    write_channels_nifti(folder / "imagesTr" / "a1.nii.gz", several)
    dataset = a_dataset(tmp_path / "data", labels="Liver,Spleen")
    import_cases(dataset, read_decathlon(folder))
    case = dataset.case("case-0001")
    assert case.image.channels == 2 and case.modality is None
    assert np.array_equal(read_volume(case.image_path).array, several.array)


def test_an_nnunet_folder_is_read_with_a_file_per_channel(tmp_path: Path) -> None:
    folder, image = tmp_path / "Dataset001_X", an_image(0)
    for channel in (0, 1):
        write(folder / "imagesTr" / f"x_{channel:04d}.nrrd", image.with_array(image.array + channel))
    write(folder / "labelsTr" / "x.nrrd", some_labels(image))
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "Liver": 1},
        "numTraining": 1,
        "file_ending": ".nrrd",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    dataset = a_dataset(tmp_path / "data", labels="Liver")
    assert import_cases(dataset, read_decathlon(folder)).failed == {}
    assert np.array_equal(read_volume(dataset.case("case-0001").image_path).array[1], image.array + 1)
    described["labels"] = {"background": 0, "Liver": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match="unions"):
        read_decathlon(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"labels": {"1": "A"}}',
        '{"labels": {"1": "A"}, "training": [{"image": "a"}]}',
        '{"labels": {"A": Infinity}, "training": []}',
        '{"labels": {"A": NaN}, "training": []}',
    ],
)
def test_a_folder_of_unknown_layout_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        read_decathlon(tmp_path)
    assert "import-pairs" in caught.value.remedy


def test_a_listed_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = a_decathlon(tmp_path / "source", ["a1"], training=[{"image": "../x.nii.gz", "label": "/etc/passwd"}])
    with pytest.raises(ConfigError, match="outside the folder"):
        read_decathlon(folder)


def test_a_link_to_an_image_elsewhere_is_followed(tmp_path: Path) -> None:
    folder = a_decathlon(tmp_path / "source", ["a1", "a2"])
    elsewhere = tmp_path / "archive.nii.gz"
    (folder / "imagesTr" / "a1.nii.gz").rename(elsewhere)
    (folder / "imagesTr" / "a1.nii.gz").symlink_to(elsewhere)
    (folder / "imagesTr" / "a2.nii.gz").unlink()
    (folder / "imagesTr" / "a2.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    dataset = a_dataset(tmp_path / "data", labels="Liver,Spleen")
    report = import_cases(dataset, read_decathlon(folder))
    assert report.added == ["case-0001"] and list(report.failed) == ["a2"]


def an_nnunet(folder: Path, labels: dict[str, Any], value: int = 1, **changes: Any) -> Path:
    """One image of one channel, with a block of label `value`."""
    image = an_image(0)
    write(folder / "imagesTr" / "x_0000.nii.gz", image)
    write(folder / "labelsTr" / "x.nii.gz", some_labels(image, value=value))
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described | changes), encoding="utf-8-sig")
    return folder


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "Liver": 2},
        {"background": "0", "liver ": "2"},
        {"Background": 0, "Liver": 2.0},
        {"0": "background", "2": "Liver"},
    ],
)
def test_labels_are_read_by_name_or_by_value_as_numbers_or_as_text(tmp_path: Path, labels: dict[str, Any]) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Liver")
    source = read_decathlon(an_nnunet(tmp_path / "source", labels, value=2))
    assert import_cases(dataset, source).failed == {}
    assert dataset.case("case-0001").revision.counts == {1: 8} and dataset.case("case-0001").modality == "CT"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "labels", [{"Liver": 1, "Tumor": "1"}, {"Liver": -1}, {"Liver": 1.5}, {"Liver": "one"}, {"1": ["Liver"]}, [1]]
)
def test_labels_that_cannot_be_are_refused_in_words(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        read_decathlon(an_nnunet(tmp_path / "source", labels))


@pytest.mark.parametrize("channels", [{"modality": {"0": "CT"}}, {"modality": ["CT"]}, {"channel_names": "CT"}])
def test_channels_are_read_in_every_spelling(tmp_path: Path, channels: dict[str, Any]) -> None:
    folder = an_nnunet(tmp_path / "source", {"background": 0, "Liver": 1}, **{"channel_names": None, **channels})
    assert read_decathlon(folder).modality == "CT"


def test_what_macos_leaves_beside_files_is_no_case(tmp_path: Path) -> None:
    folder = an_nnunet(tmp_path / "source", {"background": 0, "Liver": 1})
    for litter in ("imagesTr/._x_0000.nii.gz", "labelsTr/._x.nii.gz", "labelsTr/.DS_Store"):
        (folder / litter).write_bytes(b"\x00\x05\x16\x07")
    assert [pair.stem for pair in read_decathlon(folder).pairs] == ["x"]
    listed = a_decathlon(tmp_path / "listed", ["a1"])
    described = json.loads((listed / "dataset.json").read_text())
    described["training"].insert(0, {"image": "./imagesTr/._a1.nii.gz", "label": "./labelsTr/._a1.nii.gz"})
    (listed / "dataset.json").write_text(json.dumps(described))
    assert [pair.stem for pair in read_decathlon(listed).pairs] == ["a1"]


def test_files_that_nnunet_lists_by_case_are_read(tmp_path: Path) -> None:
    files = {"x": {"images": ["imagesTr/x_0000.nii.gz"], "label": "labelsTr/x.nii.gz"}}
    folder = an_nnunet(tmp_path / "source", {"background": 0, "Liver": 1}, dataset=files)
    dataset = a_dataset(tmp_path / "data", labels="Liver")
    assert import_cases(dataset, read_decathlon(folder)).added == ["case-0001"]


def test_voxels_that_nnunet_ignores_are_kept_as_unknown_and_are_no_structure(tmp_path: Path) -> None:
    partly = read_decathlon(an_nnunet(tmp_path / "partly", {"background": 0, "Liver": 1, "ignore": 2}, value=2))
    dataset = a_dataset(tmp_path / "data", labels="Liver")
    assert import_cases(dataset, partly, add_labels=True).failed == {}
    assert [label.name for label in dataset.labels] == ["Liver"]
    kept = dataset.case("case-0001")
    assert kept.revision is not None and kept.revision.counts == {255: 8}
    without = a_dataset(tmp_path / "without", labels="Liver")
    assert import_cases(without, partly, mapping={"ignore": None}).failed == {}
    assert without.cases()[0].revision is not None and without.cases()[0].revision.counts == {}


def test_ignored_voxels_do_not_become_a_label_that_has_their_value_from_before(tmp_path: Path) -> None:
    labels = make_table(["Liver,Tumor"])
    dataset = SiteDataset.create(tmp_path / "data", (labels[0], replace(labels[1], value=255)))
    source = read_decathlon(an_nnunet(tmp_path / "source", {"background": 0, "Liver": 1, "ignore": 2}, value=2))
    error = import_cases(dataset, source).failed["x"]
    assert "kept as 255, which in this data set is Tumor" in error.meaning and "new data set" in error.remedy


def test_pictures_and_masks_are_paired_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        pixels = noise.integers(0, 256, (8, 9, 3), dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "images" / f"{name}.png"))
        mask = np.zeros((8, 9), np.uint8)
        mask[2:4, 3:5] = 255
        sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "masks" / f"{name}_mask.png"))
    dataset = a_dataset(tmp_path / "data", labels="Polyp")
    report = import_cases(dataset, read_pairs(tmp_path / "images", tmp_path / "masks"))
    assert report.failed == {} and len(dataset.cases()) == 2
    case = dataset.cases()[0]
    assert case.modality == "RGB" and case.revision is not None and case.revision.counts == {1: 4}
    together = tmp_path / "together"
    together.mkdir()
    for path in [*(tmp_path / "images").iterdir(), *(tmp_path / "masks").iterdir()]:
        path.rename(together / path.name)
    assert [pair.stem for pair in read_pairs(together, together).pairs] == ["one", "two"]
    (together / "two_mask.png").unlink()
    with pytest.raises(ConfigError, match="two has no mask"):
        read_pairs(together, together)


def test_an_export_comes_back_as_the_same_cases(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=2, labels="Liver,Tumor")
    image = an_image(9)
    several = Volume(np.stack([image.array, image.array * 2]), GRID)
    dataset.add(several, some_labels(image, value=2), patient="secret")
    dataset.add(an_image(10), patient="unfinished")
    report = export_decathlon(dataset, tmp_path / "out")
    assert report.cases == ("case-0001", "case-0002", "case-0003") and report.failed == {}
    text = (tmp_path / "out" / "dataset.json").read_text()
    assert dataset.index.salt not in text and "p-" not in text
    again = a_dataset(tmp_path / "again", labels="Tumor,Liver")
    assert import_cases(again, read_decathlon(tmp_path / "out"), patient_pattern=".+").failed == {}
    for old, new in zip(dataset.cases("completed"), again.cases(), strict=True):
        assert old.image.voxels == new.image.voxels
        names = {label.value: label.name for label in again.labels}
        ours = {label.value: label.name for label in dataset.labels}
        assert old.revision is not None and new.revision is not None
        counted = {ours[value]: count for value, count in old.revision.counts.items()}
        assert counted == {names[value]: count for value, count in new.revision.counts.items()}


def test_an_export_replaces_nothing_and_tells_of_missing_files(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Liver")
    with pytest.raises(ConfigError, match="no completed case"):
        export_decathlon(dataset, tmp_path / "out")
    add_case(dataset, 1)
    add_case(dataset, 2).image_path.unlink()
    report = export_decathlon(dataset, tmp_path / "out")
    assert report.cases == ("case-0001",) and list(report.failed) == ["case-0002"]
    with pytest.raises(OutputError, match="not an empty folder"):
        export_decathlon(dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("folder", "patients", "note"),
    [("acdc-cine-mr", 2, False), ("liver-ct-slices", 4, True), ("polyp-rgb", 4, False), ("hippocampus-mr", 4, False)],
)
def test_labelled_data_sets_are_read_as_they_are(
    tmp_path: Path, data_root: Path, folder: str, patients: int, note: bool
) -> None:
    if not (data_root / folder).is_dir():
        pytest.skip(f"{folder} is not among the labelled data")
    source = read_decathlon(data_root / folder)
    pattern = r"patient\d+" if folder == "acdc-cine-mr" else None
    pairs = (*source.pairs[:2], *source.pairs[10:14], *source.pairs[-2:]) if note else source.pairs[:4]
    few = replace(source, pairs=pairs)
    dataset = SiteDataset.create(tmp_path / "data", ())
    report = import_cases(dataset, few, add_labels=True, patient_pattern=pattern)
    assert report.failed == {} and bool(report.notes) == note
    assert len({case.patient for case in dataset.cases()}) == patients
    assert_sound(dataset)
