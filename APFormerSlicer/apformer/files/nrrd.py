"""NRRD (.nrrd, .nhdr): voxels through SimpleITK, geometry from the header's own numbers so that it stays exact."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..checks import check_geometry
from ..volume import Source, Volume
from . import itk
from .formats import bad_spacing, damaged

_HEADER_BYTES = 1 << 20
_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_NO_SPACE = "the header names no anatomical space; i, j, k were taken to run to the patient's left, back and head"


def read(path: Path) -> Volume:
    """Raises InputError for damage, four dimensions, and geometry that ITK would repair silently or refuse dimly."""
    fields = read_header(path)
    exact = _header_matrix(path, fields)
    image = itk.read_image(path)
    if image.GetDimension() == 3 and exact is not None:
        return Volume(itk.array_of(image), exact, source=Source(path, kind="nrrd"))
    notes = () if fields.get("space", "").lower() in _TO_RAS else (f"{path.name}: {_NO_SPACE}",)
    return Volume(itk.array_of(image), itk.matrix_of(image), source=Source(path, kind="nrrd"), notes=notes)


def write(path: Path, volume: Volume, provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) voxels of their own type, gzipped; `provenance` as key/value pairs."""
    import nrrd

    lps = itk.flip_lps_ras(volume.ijk_to_ras)
    header = {
        "space": "left-posterior-superior",
        "kinds": ["domain", "domain", "domain"],
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "encoding": "gzip",
        **key_values(provenance),
    }
    nrrd.write(str(path), volume.array.transpose(2, 1, 0), header, compression_level=4, index_order="F")


def key_values(provenance: Mapping[str, str]) -> dict[str, str]:
    """NRRD key/value pairs are single lines."""
    return {f"APFormer_{key}": " ".join(value.split()) for key, value in provenance.items()}


def read_header(path: Path) -> dict[str, str]:
    """The `field: value` lines with lower-case names; key/value pairs (`:=`) are left out.

    Raises:
        InputError: not a NRRD file, or its header does not end.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if not head.startswith(b"NRRD"):
        raise damaged(path, "it does not begin with NRRD")
    match = re.search(rb"\r?\n\r?\n", head)
    if match is None and path.suffix.lower() != ".nhdr":
        raise damaged(path, "its header does not end")
    lines = head[: match.start() if match else None].decode("latin-1").splitlines()[1:]
    pairs = [line.partition(":") for line in lines if not line.startswith("#")]
    return {name.strip().lower(): value.strip() for name, _, value in pairs if not value.startswith("=")}


def _header_matrix(path: Path, fields: Mapping[str, str]) -> np.ndarray | None:
    """4x4 to RAS from `space directions`; None when the header has no 3D directions in an anatomical space."""
    spacings = [float(word) for word in fields.get("spacings", "").lower().split() if word != "none"]
    if any(step <= 0 or math.isinf(step) for step in spacings):  # NaN marks an axis that is not spatial
        raise bad_spacing(path, tuple(spacings))
    vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    signs = _TO_RAS.get(fields.get("space", "").lower())
    if len(vectors) != 3 or signs is None:
        return None
    try:
        steps = np.array([[float(number) for number in vector.split(",")] for vector in vectors])
        origin = re.findall(r"\(([^)]*)\)", fields.get("space origin", "(0,0,0)"))
        matrix = np.eye(4)
        matrix[:3, :3] = steps.T
        matrix[:3, 3] = [float(number) for number in origin[0].split(",")]
    except (ValueError, IndexError) as error:
        raise damaged(path, "its space directions or origin are not three-dimensional vectors") from error
    check_geometry(matrix, str(path))
    matrix[:3] *= np.array(signs)[:, None]
    return matrix + 0.0
