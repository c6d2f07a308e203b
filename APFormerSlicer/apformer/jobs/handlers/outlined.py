"""What `follow` proposes for structures that no model knows: the slices between those where a user outlined them.

The section "outlined" of a request: file, start_kji and shape_kji, these structures as they are now, a label map that
`arrays.part_fields` wrote; by label value names, planes ("k", "j" or "i", across the slices) and slices, those that
were outlined: what the structure has on others is proposed anew; seconds, which may be left out. The result's
"outlined" tells of the output of that name, of what changed, and what a user should know of each structure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundles.labels import HIGHEST_LABEL
from ..image import PartFile
from ..messages import Fields, RequestError
from . import segment

if TYPE_CHECKING:
    import numpy as np

    from ...following.between import Between
    from ...following.drawn_slices import DrawnSlices
    from ...volume import Volume

AXES = ("k", "j", "i")
LONGEST_S = 600.0
NOTHING = (
    "Between the outlined slices nothing was proposed that is not there already: the outlines are far apart or small. "
    "Outline one more slice between them, or go on by hand."
)
MADE_BY = "between-slices"  # where a model's name would be


@dataclass(frozen=True)
class Asked:
    """By label value: `names`, and `slices`, the axis of the array across them and their numbers."""

    labels: PartFile
    names: Mapping[int, str]
    slices: Mapping[int, tuple[int, tuple[int, ...]]]
    seconds: float | None


def parse(section: Fields) -> Asked:
    names, planes = section.texts_by_name("names"), section.texts_by_name("planes")
    numbers = section.section("slices")
    if not names or names.keys() != planes.keys() or not all(map(_is_value, names)):
        raise RequestError("The request (follow) needs the names and planes of what was outlined, by label value.")
    if not set(planes.values()) <= set(AXES):
        raise RequestError(f"The request (follow) needs planes that are one of {', '.join(AXES)}.")
    slices = {int(value): (AXES.index(plane), numbers.counts(value)) for value, plane in planes.items()}
    numbers.close()
    seconds = section.number("seconds", 1.0, LONGEST_S) if section.has("seconds") else None
    return Asked(PartFile.parse(section), {int(value): name for value, name in names.items()}, slices, seconds)


def _is_value(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3 and 0 < int(text) <= HIGHEST_LABEL


def propose(asked: Asked, volume: Volume, path: Path, progress: Callable[[float, str], None]) -> dict[str, Any]:
    """Write what is proposed to `path`, a plain array, and tell of it; what `progress` raises ends the work."""
    import numpy as np
    import torch

    from ...following.between import SECONDS, between
    from ...following.drawn_slices import DrawnSlices
    from ...inference.devices import describe
    from ...part import Part

    began, limit = time.monotonic(), SECONDS if asked.seconds is None else asked.seconds
    present = asked.labels.read().whole()
    where = {value: DrawnSlices(axis, numbers) for value, (axis, numbers) in asked.slices.items()}

    def check() -> None:
        progress(min(1.0, (time.monotonic() - began) / limit), "learning from the outlined slices")

    check()
    found = between(volume, _outlines(present, where), where, seconds=limit, check=check)
    part = Part.of(found.labels)
    segment.write_array(path, part.array)
    gained = not np.array_equal(found.labels, present)
    warnings = [f"{asked.names[one.label]}: {one.reason}" for one in found.structures if not one.learned]
    return {
        "gained": gained,
        "part": part.place(),
        "followed": " and ".join(
            f"{len(numbers)} outlined slices of {asked.names[value]}" for value, (_, numbers) in where.items()
        ),
        "warnings": warnings if gained else [NOTHING],
        "structures": _told(asked, found),
        **_changed_ml(asked, present, found.labels, volume),
        "seconds": round(time.monotonic() - began, 3),
        "device": describe(torch.device("cpu")),
        "provenance": _provenance(),
    }


def _outlines(present: np.ndarray, where: Mapping[int, DrawnSlices]) -> np.ndarray:
    """Each structure on the slices that it was outlined on."""
    import numpy as np

    drawn = np.zeros_like(present)
    for value, slices in where.items():
        drawn[slices.of(present == value)] = value
    return drawn


def _told(asked: Asked, found: Between) -> dict[str, dict[str, Any]]:
    import numpy as np

    return {
        asked.names[one.label]: {
            "voxels": int(np.count_nonzero(found.labels == one.label)),
            "learned": one.learned,
            "share": one.share,
            "reason": one.reason,
        }
        for one in found.structures
    }


def _changed_ml(asked: Asked, before: np.ndarray, after: np.ndarray, volume: Volume) -> dict[str, dict[str, float]]:
    """What was added and removed, mL by name; empty for pictures, which have no size."""
    import numpy as np

    changed: dict[str, dict[str, float]] = {"added_ml": {}, "removed_ml": {}}
    for value, name in asked.names.items() if volume.source.kind != "picture" else ():
        old, new = before == value, after == value
        changed["added_ml"][name] = float(np.count_nonzero(new & ~old)) * volume.voxel_volume_ml
        changed["removed_ml"][name] = float(np.count_nonzero(old & ~new)) * volume.voxel_volume_ml
    return changed


def _provenance() -> dict[str, str]:
    """What made it; the checksum is that of the weights which its networks began with."""
    from hashlib import sha256

    from ... import __version__
    from ...following.edge_network import START

    return {
        "model": MADE_BY,
        "model_version": __version__,
        "model_checksum": sha256(START.read_bytes()).hexdigest(),
        "program": f"APFormerSlicer {__version__}",
        "device": "cpu",
        "date": datetime.now().astimezone().isoformat(timespec="milliseconds"),
    }
