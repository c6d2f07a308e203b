"""What would spoil a training is said in plain words, with its severity and remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.bundles import Bundle, Code, Label, Preprocessing
from apformer.datasets import BLOCKS, LOOK, Problem, SiteDataset, check_dataset
from apformer.volume import Volume
from dataset_samples import GRID, a_dataset, add_case, an_image, some_labels


def kinds(dataset: SiteDataset, base: Bundle | None = None, **settings: Any) -> dict[str, Problem]:
    return {problem.kind: problem for problem in check_dataset(dataset, base, **settings)}


def add(dataset: SiteDataset, seed: int, image: Volume, labels: Volume | None = None, **settings: Any) -> None:
    dataset.add(image, labels or some_labels(image), patient=f"patient {seed}", **settings)


@pytest.fixture
def dataset(tmp_path: Path) -> SiteDataset:
    return a_dataset(tmp_path / "data", patients=8, labels="Liver")


def a_model(names: tuple[str, ...], channels: int = 1, modality: str = "MR", spacing: float = 1.5) -> Bundle:
    code = Code("SCT", "85756007", "Tissue")
    labels = tuple(Label(value, name, (0, 0, 0), code, code) for value, name in enumerate(names, 1))
    intensity = {"kind": "percentile", "lower": 0.5, "upper": 99.5}
    expects = Preprocessing(3, "RAS", (spacing, spacing, 2 * spacing), (16, 16, 16), intensity)
    return Bundle(Path(), "base", "1.0.0", "", modality, channels, labels, expects, "apformer", {}, {}, "")


def test_a_sound_data_set_has_no_problems(dataset: SiteDataset) -> None:
    assert check_dataset(dataset, a_model(("Liver",))) == []


@pytest.mark.parametrize(("patients", "severity"), [(0, BLOCKS), (1, BLOCKS), (2, BLOCKS), (3, LOOK), (7, LOOK)])
def test_how_many_patients_are_missing_is_told(tmp_path: Path, patients: int, severity: str) -> None:
    found = kinds(a_dataset(tmp_path / "data", patients=patients, labels="Liver"))
    problem = found["too few cases" if severity == BLOCKS else "few cases"]
    assert problem.severity == severity
    assert f"{3 - patients if severity == BLOCKS else 8 - patients} more" in problem.remedy


def test_cases_that_are_not_completed_are_told(dataset: SiteDataset) -> None:
    dataset.correct("case-0001", status="flagged")
    dataset.correct("case-0002", status="in progress")
    found = kinds(dataset)
    assert found["flagged"].cases == ("case-0001",) and found["in progress"].cases == ("case-0002",)


def test_empty_masks_are_worth_a_look_and_nothing_but_empty_masks_block(dataset: SiteDataset, tmp_path: Path) -> None:
    image = an_image(50)
    empty = image.with_array(np.zeros(image.spatial_shape, np.uint8))
    add(dataset, 50, image, empty)
    assert kinds(dataset)["empty masks"].severity == LOOK and kinds(dataset)["empty masks"].cases == ("case-0009",)
    other = a_dataset(tmp_path / "other", labels="Liver")
    for seed in range(3):
        add(other, seed, an_image(seed), empty)
    assert kinds(other)["empty masks"].severity == BLOCKS


def test_a_label_that_no_case_shows_cannot_be_learned(dataset: SiteDataset) -> None:
    dataset.add_label("Cyst")
    assert kinds(dataset)["never outlined"].what == "Cyst is outlined in no completed case."
    dataset.correct("case-0001", outlined=["Cyst"])  # somebody has looked, and found none
    assert "Cyst occurs in completed cases of no patient" in kinds(dataset)["rare label"].what


def test_a_table_without_labels_blocks(tmp_path: Path) -> None:
    assert kinds(SiteDataset.create(tmp_path / "data", ()))["no labels"].severity == BLOCKS


def test_labels_are_compared_with_those_of_the_base_model(dataset: SiteDataset) -> None:
    found = kinds(dataset, a_model(("Spleen", "Kidney")))
    assert "No label of the data set is one of base 1.0.0 (Spleen, Kidney)" in found["label names"].what
    assert "learn Liver alone; what the model finds is dropped" in found["label names"].meaning
    assert "add-label" in found["label names"].remedy and "missing labels" not in found
    dataset.add_label("Vein")
    found = kinds(dataset, a_model(("Liver", "Kidney")))
    assert "Vein is not in base 1.0.0" in found["new labels"].what
    assert "Kidney of base 1.0.0 is not" in found["missing labels"].what
    found = kinds(dataset, a_model(("liver", "Vein")))
    assert not {"label names", "missing labels"} & set(found)  # case and blanks do not count


def test_channels_modality_and_spacing_are_compared_with_the_base_model(dataset: SiteDataset) -> None:
    found = kinds(dataset, a_model(("Liver",), channels=3, modality="RGB", spacing=9.0))
    assert found["channels"].severity == BLOCKS and "takes 3" in found["channels"].what
    assert "base 1.0.0 is for RGB" in found["modality"].what
    assert len(found["spacing"].cases) == 8


def test_a_field_of_view_that_cannot_be_blocks(dataset: SiteDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:  # a version that did not refuse it yet
        earlier.setattr("apformer.datasets.incoming.check_image", lambda volume: None)
        add(dataset, 20, an_image(20, matrix=np.diag([1500.0, 1500.0, 3000.0, 1.0])))
    problem = kinds(dataset)["field of view"]
    assert problem.severity == BLOCKS and problem.cases == ("case-0009",) and "micrometres" in problem.meaning


def test_a_spacing_far_from_the_rest_is_told_with_its_numbers(dataset: SiteDataset) -> None:
    add(dataset, 20, an_image(20, matrix=np.diag([3.1, 3.1, 3.0, 1.0])))
    problem = kinds(dataset)["spacing"]
    assert problem.cases == ("case-0009",) and "3.1 x 3.1 x 3 mm" in problem.what and "1.5 x 1.5 x 3 mm" in problem.what
    turned = a_dataset(dataset.root.parent / "turned", patients=8, labels="Liver")
    add(turned, 30, an_image(30).oriented("SRA"))  # the same spacing, sagittal
    assert "spacing" not in kinds(turned)


def test_a_volume_far_from_the_rest_is_told_with_its_numbers(dataset: SiteDataset) -> None:
    add_case(dataset, 20, size=1)
    problem = kinds(dataset)["label volume"]
    assert problem.cases == ("case-0009",)
    assert "0.00675 mL" in problem.what and "the median of 9 is 0.054 mL" in problem.what


def test_odd_intensities_are_told(dataset: SiteDataset) -> None:
    add(dataset, 20, replace(an_image(20), modality="CT"))
    image = an_image(21)
    add(dataset, 21, image.with_array(image.array / np.float32(999)))
    whats = [problem.what for problem in check_dataset(dataset) if problem.kind == "intensities"]
    assert any("CT without negative values: case-0009" in what for what in whats)
    assert any("far from the rest" in what and "case-0010" in what for what in whats)
    assert "1 x CT" in kinds(dataset)["modality"].what


def test_images_of_different_channels_block(dataset: SiteDataset) -> None:
    image = an_image(20)
    add(dataset, 20, replace(image, array=np.stack([image.array] * 2)), some_labels(image))
    assert kinds(dataset)["channels"].severity == BLOCKS
    flat = an_image(21, shape=(1, 6, 5))
    add(dataset, 21, flat, some_labels(flat, size=1))
    assert "1 x single slices" in kinds(dataset)["dimensions"].what


def test_missing_and_changed_files_block_and_quick_checks_do_not_read_them(dataset: SiteDataset) -> None:
    first, second, third = dataset.cases()[:3]
    first.image_path.unlink()
    assert second.labels_path is not None and third.labels_path is not None
    other = sitk.GetImageFromArray(np.ones((2, 2, 2), np.uint8))
    sitk.WriteImage(other, str(second.labels_path))
    third.labels_path.write_bytes(b"damage")
    assert kinds(dataset, read_files=False) == {}
    found = {problem.cases: problem for problem in check_dataset(dataset)}
    assert all(problem.severity == BLOCKS for problem in found.values()) and len(found) == 3
    assert found["case-0001",].kind == "missing file"
    assert "another grid" in found["case-0002",].meaning and "2 x 2 x 2" in found["case-0002",].meaning
    assert "could not be read" in found["case-0003",].meaning


def test_a_changed_older_version_does_not_block(dataset: SiteDataset) -> None:
    case = dataset.correct("case-0001", some_labels(an_image(0), size=1))
    case.revision_path(case.revisions[0]).write_bytes(b"damage")
    assert kinds(dataset)["changed file"].severity == LOOK


def test_the_same_voxels_on_another_grid_are_told(dataset: SiteDataset) -> None:
    image = an_image(0)
    add(dataset, 20, replace(image, ijk_to_ras=GRID @ np.diag([1.1, 1.1, 1.0, 1.0])))
    assert kinds(dataset)["duplicates"].cases == ("case-0001", "case-0009")


def test_a_frozen_split_that_misses_a_label_or_a_side_is_told(dataset: SiteDataset) -> None:
    split = dataset.freeze_split()
    dataset.add_label("Cyst")
    training, validation = split.divide(dataset.cases())
    for case in training[:2]:
        image = an_image(case.number - 1)
        both = some_labels(image).array.copy()
        both[3, 5, 4] = 2
        dataset.correct(case.name, image.with_array(both))
    assert "Cyst occurs in the training cases only" in kinds(dataset)["split"].what
    for case in validation:
        dataset.remove(case.name)
    assert kinds(dataset)["split"].severity == BLOCKS


def test_files_that_the_index_does_not_know_are_told(dataset: SiteDataset) -> None:
    (dataset.root / "cases" / "case-0042").mkdir()
    assert "case-0042" in kinds(dataset)["unknown files"].what
