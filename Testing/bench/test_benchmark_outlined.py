"""`benchmark follow --outlined`: which slices a simulated user outlines, what is compared, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer import cli
from apformer.benchmarks.outlined import distances, outlined_slices, render, study
from apformer.errors import ConfigError

ROWS, COLUMNS = np.mgrid[:32, :32]


@pytest.fixture
def tubes(tmp_path: Path) -> Path:
    """Two volumes with a bright tube that is bent, and a short one that only the first volume has outlined."""
    listed = []
    for number in (1, 2):
        middle = 14 + 4 * np.sin(np.arange(9) * 0.8 + number)
        labels = np.stack([(ROWS - row) ** 2 + (COLUMNS - 12) ** 2 < 36 for row in middle]).astype(np.uint8)
        labels[2:7, 8:14, 24:30] = 2
        noise = np.random.default_rng(number).normal(0, 5, labels.shape)
        for folder, array in (("imagesTr", 100 + 80.0 * (labels > 0) + noise), ("labelsTr", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(array.astype(np.int16))
            image.SetSpacing((1.0, 1.0, 4.0))
            sitk.WriteImage(image, str(tmp_path / folder / f"{number}.nii.gz"))
        paths = {"image": f"./imagesTr/{number}.nii.gz", "label": f"./labelsTr/{number}.nii.gz"}
        listed.append(paths | ({} if number == 1 else {"labelled": [1]}))
    described = {"training": listed, "labels": {"0": "background", "1": "Tube", "2": "Block"}, "modality": {"0": "MRI"}}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return tmp_path


def test_every_structure_is_compared_in_the_volumes_that_outline_it(tubes: Path) -> None:
    record = study(tubes, 4, seconds=20)
    assert {name: found["volumes"] for name, found in record["structures"].items()} == {"Tube": 2, "Block": 1}
    tube = record["structures"]["Tube"]
    assert 0 < tube["interpolated"] < tube["followed"] <= 1 and record["seconds"] > 0
    json.dumps(record)


def test_what_it_is_compared_with_can_be_given_and_structures_chosen(tubes: Path) -> None:
    record = study(tubes, 4, None, structures=["tube"], seconds=0.5, interpolate=lambda mask, slices: mask)
    assert list(record["structures"]) == ["Tube"] and record["structures"]["Tube"]["interpolated"] == 1.0
    assert record["interpolation"] == "given"


def test_first_and_last_slices_are_outlined_whatever_the_number() -> None:
    mask = np.zeros((12, 4, 4), bool)
    mask[2:10, 1:3] = True
    assert outlined_slices(mask, 3) == [2, 5, 8, 9]
    assert outlined_slices(mask, 20) == [2, 9]
    assert outlined_slices(np.zeros_like(mask), 3) == []
    assert np.array_equal(distances(mask, [2, 9]), mask)


def test_what_cannot_be_measured_is_told(tubes: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing lies between"):
        study(tubes, 1)
    with pytest.raises(ConfigError, match="Not all of liver"):
        study(tubes, 4, structures=["liver"])


def test_the_command_prints_one_object_and_writes_it(
    tubes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["benchmark", "follow", str(tubes), "--outlined", "4", "--structures", "Tube", "--volumes", "1"]
    written = tmp_path / "outlined.json"
    assert cli.main([*asked, "--seconds", "0.5", "--json", "-o", str(written)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads(written.read_text(encoding="utf-8"))
    assert set(said["structures"]["Tube"]) >= {"interpolated", "followed"} and said["seconds"] > 0
    assert "Tube" in render(said)


def test_a_model_and_outlines_exclude_each_other(tubes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--outlined", "4", "--model", "liver-ct"], ["--outlined", "1"]):
        assert cli.main(["benchmark", "follow", str(tubes), *more]) == 2
