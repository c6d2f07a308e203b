"""Where the voxels of a NRRD file lie, from its header's own numbers so that it stays exact."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..checks import check_geometry
from .formats import bad_spacing, damaged

_LPS = (-1.0, -1.0, 1.0)
_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": _LPS,
    "lps": _LPS,
}
_MILLIMETRES = ("", "mm", "millimeter", "millimetre")


def matrix_of(path: Path, fields: Mapping[str, str], spatial: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """4x4, (i, j, k) to RAS in mm, and what was assumed. A flat image lies in the plane S = 0 with a slice of 1 mm.

    Args:
        fields: the header's, by name in lower case without blanks.
        spatial: numbers of the axes in space.

    Raises:
        InputError: spacing, directions or origin that cannot be trusted.
    """
    spacing = _spacing(path, fields, spatial)
    signs, notes = _TO_RAS.get(fields.get("space", "").lower()), []
    if signs is None:
        what = "its axes" if "spacedirections" in fields else "i, j, k"
        notes.append(
            f"the header names no anatomical space; {what} were taken to run to the patient's left, back and head"
        )
    matrix = np.eye(4)
    n = len(spatial)
    if "spacedirections" in fields:
        matrix[:n, :n] = np.array(_vectors(path, fields["spacedirections"], n, n)).T
    else:
        matrix[:n, :n] = np.diag(spacing)
        if signs is not None:
            notes.append("the header gives no orientation; i, j, k were taken to run along the axes of its space")
    origin = _origin(path, fields, spatial, spacing)
    if origin is None:
        notes.append("the header gives no position; the first voxel was taken to lie at 0, 0, 0")
    else:
        matrix[:n, 3] = origin
    units = {unit.strip().lower() for unit in re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))}
    if not units <= set(_MILLIMETRES):
        notes.append(f"the header gives lengths in {', '.join(sorted(units))[:40]}; they were taken as millimetres")
    check_geometry(matrix, str(path))
    matrix[:3] *= np.array(signs or _LPS)[:, None]
    return matrix + 0.0, tuple(f"{path.name}: {note}" for note in notes)


def _spacing(path: Path, fields: Mapping[str, str], spatial: Sequence[int]) -> np.ndarray:
    """Of the axes in space; 1 where none is given. NaN and "none" mark axes that are not in space."""
    given = _per_axis(path, fields, "spacings")
    if any(step <= 0 or math.isinf(step) for step in given):
        raise bad_spacing(path, tuple(given))
    found = [given[axis] if axis < len(given) else 1.0 for axis in spatial]
    if given and any(math.isnan(step) for step in found):
        raise bad_spacing(path, tuple(given))
    return np.array(found)


def _per_axis(path: Path, fields: Mapping[str, str], name: str) -> list[float]:
    try:
        return [math.nan if word == "none" else float(word) for word in fields.get(name, "").lower().split()]
    except ValueError as error:
        raise damaged(path, f"{name} in its header are not numbers") from error


def _vectors(path: Path, text: str, count: int, length: int) -> list[list[float]]:
    try:
        vectors = [[float(number) for number in vector.split(",")] for vector in re.findall(r"\(([^)]*)\)", text)]
    except ValueError as error:
        raise damaged(path, "its space directions or origin are not vectors of numbers") from error
    if any(len(vector) != length for vector in vectors) or len(vectors) != count:
        raise damaged(path, f"its space directions or origin are not {count} vectors of {length} numbers")
    return vectors


def _origin(
    path: Path, fields: Mapping[str, str], spatial: Sequence[int], spacing: np.ndarray
) -> list[float] | np.ndarray | None:
    if fields.get("spaceorigin"):
        return _vectors(path, fields["spaceorigin"], 1, len(spatial))[0]
    lowest = _per_axis(path, fields, "axismins")
    ends = [lowest[axis] if axis < len(lowest) else math.nan for axis in spatial]
    if not all(math.isfinite(end) for end in ends):
        return None
    centers = re.findall(r"\S+", fields.get("centers", fields.get("centerings", "")).lower())
    # An axis begins at the border of its first voxel, unless its samples are nodes.
    nodes = [axis < len(centers) and centers[axis] == "node" for axis in spatial]
    return np.array(ends) + np.where(nodes, 0.0, spacing / 2)
