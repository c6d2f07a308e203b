"""Lets the tests here import the sample builders that lie beside them by name; data that several of them share."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out


@pytest.fixture
def a_dataset(tmp_path: Path) -> Path:
    """Seven cases of five patients, each a bright ball at its own place in noise, in Decathlon layout."""
    folder = tmp_path / "balls"
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(14)] * 3, indexing="ij"))
    listed = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name in ("p1_a", "p2_a", "p2_b", "p3_a", "p4_a", "p4_b", "p5_a"):
        centre = generator.integers(5, 9, 3)[:, None, None, None]
        ball = ((grid - centre) ** 2).sum(0) < 12
        image = generator.normal(0, 10, ball.shape) + 100 * ball
        for part, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", ball.astype(np.uint8))):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / part / f"{name}.nii.gz"))
        listed.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"training": listed}))
    return folder
