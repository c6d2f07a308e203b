"""MetaImage (.mha, .mhd)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..checks import check_geometry
from ..volume import Source, Volume
from . import itk
from .formats import bad_spacing, damaged, four_dimensional

_HEADER_BYTES = 1 << 16


def read(path: Path) -> Volume:
    """Raises InputError for damage, four dimensions, and geometry that ITK would repair silently or refuse dimly."""
    fields = _header(path)
    size = tuple(_numbers(path, fields, "DimSize"))
    if len(size) > 3 and any(length > 1 for length in size[3:]):
        raise four_dimensional(path, tuple(int(length) for length in size))
    for key in ("ElementSpacing", "ElementSize"):
        spacing = _numbers(path, fields, key)
        if any(not math.isfinite(step) or step <= 0 for step in spacing):
            raise bad_spacing(path, tuple(spacing))
    for key in ("TransformMatrix", "Rotation", "Orientation"):
        direction = _numbers(path, fields, key)
        if len(direction) == 9:
            check_geometry(_embedded(direction), str(path))
    image = itk.read_image(path)
    return Volume(itk.array_of(image), itk.matrix_of(image), source=Source(path, kind="mha"))


def write(path: Path, volume: Volume, provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) voxels of their own type, compressed; `provenance` as extra header fields."""
    image = itk.image_of(volume.array, volume.ijk_to_ras)
    for key, value in provenance.items():
        image.SetMetaData(f"APFormer_{key}", " ".join(value.split()))
    itk.write_image(image, path)


def _header(path: Path) -> dict[str, str]:
    with path.open("rb") as stream:
        text = stream.read(_HEADER_BYTES).decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":  # always the last line; voxels may follow
            return fields
    raise damaged(path, "its header does not name the voxel data (ElementDataFile)")


def _numbers(path: Path, fields: Mapping[str, str], key: str) -> list[float]:
    try:
        return [float(word) for word in fields.get(key, "").split()]
    except ValueError as error:
        raise damaged(path, f"{key} in its header is not a list of numbers") from error


def _embedded(direction: list[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(direction).reshape(3, 3).T
    return matrix
