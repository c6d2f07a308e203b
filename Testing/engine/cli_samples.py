"""What the command-line tests work on: a model of a few thousand random weights, small images, and a way to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk
from apformer import cli
from apformer.bundles import Preprocessing
from bundle_samples import ARGUMENTS, save_sample

# Slices 2D, one channel: takes volumes and gray pictures alike, and any voxel size.
SLICES = Preprocessing(
    spatial_dims=2,
    orientation="acquired",
    spacing_mm=None,
    patch_size=(16, 16),
    intensity={"kind": "percentile", "lower": 0.5, "upper": 99.5},
)


class Ran(NamedTuple):
    """Exit status, stdout and stderr of one command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs `apformer` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> Ran:
        self._capsys.readouterr()
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as left:
            status = int(left.code or 0)
        return Ran(status, *self._capsys.readouterr())


def save_slices_model(directory: Path) -> Path:
    """A model named as its folder."""
    arguments = {**ARGUMENTS, "spatial_dims": 2, "image_size": [16, 16]}
    from apformer.networks import build_network

    state = build_network("apformer", arguments).state_dict()
    save_sample(directory, name=directory.name, preprocessing=SLICES, network_arguments=arguments, state_dict=state)
    return directory


def noise(shape: tuple[int, ...] = (3, 12, 10), seed: int = 0) -> np.ndarray:
    """An image (k, j, i) without any structure."""
    return np.random.default_rng(seed).normal(100, 30, shape).astype(np.float32)


def write_image(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Path:
    """Write (k, j, i) as a file; `spacing` along i, j, k in mm."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_picture(path: Path, seed: int = 0) -> Path:
    """A gray picture of 14 x 18 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (14, 18), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def write_dicom(folder: Path, uid: str, slices: int = 3) -> Path:
    """A CT series of noise, one file per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(slices):
        image = sitk.GetImageFromArray(noise((12, 10), seed=k).astype(np.int16))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0060": "CT",
            "0010|0020": "test",
            "0020|000d": f"{uid}.100",
            "0020|000e": uid,
            "0020|0032": f"0\\0\\{2 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|0030": "1\\1",
            "0018|0050": "2",
            "0020|0013": str(k + 1),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"slice{k}.dcm"))
        writer.Execute(image)
    return folder


def files_in(folder: Path) -> list[str]:
    """All files below `folder`, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
