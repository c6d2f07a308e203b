"""What nothing can judge decides nothing: labels that no validation case has, in training and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from apformer.errors import ConfigError, InputError
from apformer.files import read_volume

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.training import parse_config, train
from apformer.training.cases import by_name, read_case, read_dataset, split_cases
from apformer.training.config import TrainingConfig
from apformer.training.selection import mean_of
from apformer.training.validation import Judged
from training_samples import SETTINGS, a_trainer, settings


def two_labels() -> TrainingConfig:
    """Ball, and Ghost, which no case shows."""
    ball = SETTINGS["labels"][0]
    network = {**SETTINGS["network"], "out_channels": 3}
    return parse_config(settings(labels=[ball, {**ball, "value": 2, "name": "Ghost"}], network=network))


def test_a_label_that_no_validation_case_has_is_left_out_of_every_judgement(a_dataset: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    bundle = train(two_labels(), a_dataset, tmp_path / "run", device="cpu", workers=0, on_event=events.append)
    judged = [event["dice"] for event in events if event["event"] == "epoch" and "dice" in event]
    assert judged and all(dice["Ghost"] is None and dice["Ball"] is not None for dice in judged)
    measured = bundle.metadata["metrics"]["labels"]
    assert measured["Ghost"] == dict.fromkeys(measured["Ghost"]) and measured["Ball"]["mean_dice"] is not None
    card = (bundle.directory / "docs" / "README.md").read_text()
    assert "| Ghost | - | - | - | - |" in card


def test_selection_goes_by_the_labels_that_are_judged(a_dataset: Path, tmp_path: Path) -> None:
    trainer = a_trainer(a_dataset, two_labels(), tmp_path / "run")
    trainer._select(Judged({"Ball": 0.5, "Ghost": None}, 1.0, 1), trainer.ema, 0)
    trainer._select(Judged({"Ball": 0.4, "Ghost": None}, 0.5, 1), trainer.ema, 0)
    assert trainer.selection.dice == 0.5
    assert mean_of({"Ball": 0.5, "Ghost": None}) == 0.5 and mean_of({"Ghost": None}) is None


def test_a_training_that_nothing_judges_keeps_the_last_weights(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings())
    for case in split_cases(read_dataset(a_dataset, config.split), config.split)[1]:
        rewrite(case.label, lambda array: array * 0)
    trainer = a_trainer(a_dataset, config, tmp_path / "run")
    weights = trainer.run()
    assert [row["dice"] for row in trainer.rows if "dice" in row] == [{"Ball": None}] * 2
    assert not trainer.is_judged
    last = trainer.ema.module.state_dict()
    assert all(torch.equal(weights[name], tensor.cpu()) for name, tensor in last.items())


# -------------------------------------------------------------------------------- labels as they are read


def describe(folder: Path, labels: dict[str, Any]) -> None:
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**described, "labels": labels}))


def rewrite(path: Path, change: Any) -> None:
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))


def test_labels_stored_in_another_orientation_lie_on_the_image(a_dataset: Path) -> None:
    case = read_dataset(a_dataset, parse_config(settings()).split)[0]
    expected = read_volume(case.label).array
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(case.label)), "RAS"), str(case.label))
    assert not np.array_equal(read_volume(case.label).array, expected)  # the file is turned
    found = read_case(case)
    assert np.array_equal(found.label.array, expected) and found.label.notes == ()
    assert np.array_equal(found.label.ijk_to_ras, found.image.ijk_to_ras)


def test_labels_in_another_place_or_without_whole_numbers_are_refused(a_dataset: Path) -> None:
    first, second, third, *_ = read_dataset(a_dataset, parse_config(settings()).split)
    image = sitk.ReadImage(str(first.label))
    image.SetOrigin((5.0, 0.0, 0.0))
    sitk.WriteImage(image, str(first.label))
    with pytest.raises(InputError, match="not on the grid"):
        read_case(first)
    rewrite(second.label, lambda array: array * np.float32(0.5))
    with pytest.raises(InputError, match="no whole numbers"):
        read_case(second)
    rewrite(third.label, lambda array: array * np.float32(0.996))
    found = read_case(third)
    assert int(found.label.array.sum()) > 0 and "rounded" in found.label.notes[0]


def test_values_are_matched_by_the_names_in_dataset_json(a_dataset: Path) -> None:
    config = two_labels()
    for case in read_dataset(a_dataset, config.split):
        rewrite(case.label, lambda array: array * 7)
    describe(a_dataset, {"0": "background", "7": " ball", "1": "ghost", "3": "Vessel"})
    cases, notes = by_name(read_dataset(a_dataset, config.split), a_dataset, config.labels)
    label = read_case(cases[0]).label
    assert set(np.unique(label.array)) == {0, 1}
    assert any("Vessel" in note for note in notes) and any("ball 7 -> 1" in note for note in notes)
    assert cases[0].revision  # a form that was prepared with other values is not used
    rewrite(cases[0].label, lambda array: array + 2 * (array == 0))
    assert "values that no label has, taken as background: 2" in read_case(cases[0]).label.notes[0]


def test_a_black_and_white_mask_is_the_one_label_there_is(a_dataset: Path) -> None:
    config = parse_config(settings())
    first = read_dataset(a_dataset, config.split)[0]
    expected = read_case(first).label.array
    rewrite(first.label, lambda array: array * 255)
    for names in ({}, {"0": "background", "1": "Ball"}):
        describe(a_dataset, names)
        cases, _ = by_name([first], a_dataset, config.labels)
        assert np.array_equal(read_case(cases[0]).label.array, expected)


def test_a_label_that_dataset_json_does_not_name_is_refused_and_missing_names_are_told(a_dataset: Path) -> None:
    config = parse_config(settings())
    _, notes = by_name(read_dataset(a_dataset, config.split), a_dataset, config.labels)
    assert "does not name its labels" in notes[0]
    describe(a_dataset, {"background": 0, "Lesion": 1})
    with pytest.raises(ConfigError, match="no label 'Ball'; it has: Lesion"):
        by_name(read_dataset(a_dataset, config.split), a_dataset, config.labels)


def test_the_shared_set_with_turned_labels_is_read_as_its_images_lie(cases_root: Path, data_root: Path) -> None:
    from apformer.training.config import Split

    folder = cases_root / "06-train-label-orientation" / "set"
    original = data_root / "hippocampus-mr" / "labelsTr"
    if not original.is_dir():
        pytest.skip("the hippocampus images are not among the labelled data")
    cases = read_dataset(folder, Split(r"(?P<patient>hippocampus_(?P<number>\d+))", 5, 4))
    assert len(cases) == 12
    for case in cases:
        assert np.array_equal(read_case(case).label.array, read_volume(original / case.label.name).array)
