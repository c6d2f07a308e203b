"""Simulated users correct slices by the reference; what is measured is what nobody touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from apformer import cli
from apformer.benchmarks import follow as benchmark
from apformer.benchmarks.follow_users import interpolated_between, shared_labels
from apformer.bundles import load_bundle
from apformer.errors import ConfigError
from apformer.following import Plane
from apformer.networks import registered
from following_samples import Thresholds, a_patient, save_thresholds, truth

KEYS = {"volumes", "before", "after", "interpolated", "below", "worse", "seconds", "peak_mib"}


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with registered("thresholds", Thresholds):
        yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_thresholds(tmp_path / "hippocampus-test").directory


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two patients; the structure is called almost as in the model."""
    folder = tmp_path / "data"
    volume = a_patient()
    training = []
    for name in ("a_1", "a_2"):
        for kind, array in (("imagesTr", volume.array), ("labelsTr", truth(volume) * 4)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.0, 1.0, 4.0))
            sitk.WriteImage(image, str(folder / kind / f"{name}.nii.gz"))
        training.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    names = {"0": "background", "4": "Anterior part"}
    (folder / "dataset.json").write_text(json.dumps({"labels": names, "modality": {"0": "MR"}, "training": training}))
    return folder


def study(dataset: Path, model: Path, **more: Any) -> dict[str, Any]:
    return benchmark.run(dataset, str(model), seconds=600.0, say=lambda _: None, **more)


def test_the_rest_is_compared_before_and_after_one_corrected_slice(dataset: Path, model: Path) -> None:
    record = study(dataset, model)
    assert record.keys() >= KEYS and record["volumes"] == 2
    assert record["after"] > record["before"] + 0.05 and record["interpolated"] == record["before"]
    assert record["below"] == {"threshold": 0.93, "volumes": 2} | {
        name: record[name] for name in ("before", "after", "interpolated")
    }
    assert record["worse"] == 0.0 and record["seconds"] > 0 and record["peak_mib"] > 0
    assert "Dice of the rest, 2 volumes" in benchmark.render(record)


def test_the_command_prints_one_object(dataset: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "follow", str(dataset), "--model", str(model), "--volumes", "1", "--seconds", "600", "--json"]
    assert cli.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() >= KEYS and printed["volumes"] == 1


@pytest.mark.parametrize("wrong", [("--users", "nobody"), ("--slices", "0"), ("--seconds", "-1")])
def test_the_command_refuses_users_and_numbers_that_there_are_not(dataset: Path, wrong: tuple[str, str]) -> None:
    assert cli.main(["benchmark", "follow", str(dataset), "--model", "liver-ct", *wrong]) == 2


def test_users_go_on_correcting_and_interpolation_is_told_beside_it(dataset: Path, model: Path) -> None:
    record = study(dataset, model, users=("middle", "place"), slices=(1, 2), volumes=1)
    rounds = record["cases"]["a_1"]
    assert [(entry["user"], entry["slices"]) for entry in rounds] == [
        ("middle", 1), ("middle", 2), ("place", 1), ("place", 2)
    ]  # fmt: skip
    assert rounds[0]["corrected"] == [3] and len(rounds[1]["corrected"]) == 2
    row = record["table"][1]
    assert row["both"] >= row["after"] and row["interpolated"] >= row["before"]
    assert sum(record["until_enough"]["middle"].values()) == 1


def test_a_study_is_continued_and_not_mixed_with_another(dataset: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "record.json"
    first = study(dataset, model, volumes=1, output=output)
    said: list[str] = []
    whole = benchmark.run(dataset, str(model), seconds=600.0, output=output, say=said.append)
    assert whole["cases"]["a_1"] == first["cases"]["a_1"] and [line[:3] for line in said] == ["a_2"]
    with pytest.raises(ConfigError, match="record of another study"):
        benchmark.run(dataset, str(model), users=("middle",), seconds=600.0, output=output)
    output.write_text("[]")
    with pytest.raises(ConfigError, match="is no record"):
        study(dataset, model, output=output)


def test_structures_are_matched_by_their_words_and_none_in_common_is_told(model: Path) -> None:
    bundle = load_bundle(model)
    assert shared_labels(bundle, {0: "background", 3: "Anterior"}) == {3: 1}
    assert shared_labels(bundle, {3: "anterior part", 5: "anterior"}) == {5: 1}
    with pytest.raises(ConfigError, match="Nothing can be compared"):
        shared_labels(bundle, {1: "Liver", 2: "anterior left", 3: "anterior right"})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_between_corrected_slices_outlines_are_interpolated_and_beyond_nothing_changes(axis: int) -> None:
    labels = np.zeros((7, 9, 9), np.uint8)
    labels[1, 2:7, 2:7] = 2
    labels[5, 4:5, 4:5] = 2
    labels[0], labels[6] = 1, 1
    turned = np.moveaxis(labels, 0, axis)
    found = np.moveaxis(interpolated_between(turned, [Plane(axis, 1), Plane(axis, 5)]), axis, 0)
    areas = [int(np.count_nonzero(part == 2)) for part in found]
    assert areas[1] == 25 and areas[5] == 1 and areas[1] >= areas[2] >= areas[3] >= areas[4] >= areas[5]
    assert 1 < areas[3] < 25 and np.array_equal(found[[0, 1, 5, 6]], labels[[0, 1, 5, 6]])
    assert np.array_equal(interpolated_between(turned, [Plane(axis, 1)]), turned)
