"""`follow`: a corrected segmentation to a new proposal for what the user has not touched.

Fields: image or array, device, as of `segment`. Of what a model proposed: model; proposal and labels, the label map as
it was proposed and as it is now, each a part that `arrays.part_fields` wrote; right {k, j, i}, the slices marked as
right along each axis of the array, all of which may be left out; certain, a part that is 1 where earlier corrections
had settled a voxel; plane ("k", "j" or "i"), across the slices that the user draws on; seconds; outputs {labels,
uncertainty, certain, model}, of which the last three may be left out. Of structures that no model knows: outlined, see
the file `outlined`, and its output. One of the two may be missing.

The result is that of `segment`, with "gained" (where it is false, the labels are those that came, and there is no map
of uncertainty), "followed" (in words), "added_ml" and "removed_ml" by label name, "share", "wrong", "steps". "certain"
goes to a .npy file as the maps do; its place is told under that name. "model" is a folder: the adapted network as a
model of its own, for `segment` jobs of the same session. "outlined" tells of the other structures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..image import Image, PartFile
from ..messages import Fields
from . import outlined, segment

if TYPE_CHECKING:
    from ...bundles import Bundle
    from ...following import Corrections, Followed
    from ...inference import Result
    from ...volume import Volume
    from ..job import Job

OUTLINED = 0.6  # of the progress is that of outlines, where a model learns too
MAPS = ("uncertainty", "certain")


@dataclass(frozen=True)
class Corrected:
    """What was corrected of a model's proposal. `right`: (axis of the array, index)."""

    model: str
    proposal: PartFile
    labels: PartFile
    certain: PartFile | None
    right: tuple[tuple[int, int], ...]
    axis: int
    seconds: float | None


@dataclass(frozen=True)
class Arguments:
    """A request to follow. `outputs`: what is wanted, to files."""

    image: Image
    device: str
    corrected: Corrected | None
    outlined: outlined.Asked | None
    outputs: dict[str, Path]


def parse(fields: Fields) -> Arguments:
    asked = outlined.parse(fields.section("outlined")) if fields.has("outlined") else None
    corrected = None if asked is not None and not fields.has("model") else _corrected(fields)
    outputs = fields.section("outputs")
    needed = [*(["labels"] if corrected else []), *(["outlined"] if asked else [])]
    wanted = [name for name in (*MAPS, "model") if corrected and outputs.has(name)]
    paths = {name: outputs.path(name) for name in (*needed, *wanted)}
    outputs.close()
    return Arguments(Image.parse(fields), fields.text("device", "auto"), corrected, asked, paths)


def _corrected(fields: Fields) -> Corrected:
    return Corrected(
        fields.text("model"),
        PartFile.parse(fields.section("proposal")),
        PartFile.parse(fields.section("labels")),
        PartFile.parse(fields.section("certain")) if fields.has("certain") else None,
        _right(fields),
        outlined.AXES.index(fields.choice("plane", outlined.AXES, "k")),
        fields.number("seconds", 1.0, outlined.LONGEST_S) if fields.has("seconds") else None,
    )


def _right(fields: Fields) -> tuple[tuple[int, int], ...]:
    if not fields.has("right"):
        return ()
    section = fields.section("right")
    found = [
        (axis, index) for axis, name in enumerate(outlined.AXES) if section.has(name) for index in section.counts(name)
    ]
    section.close()
    return tuple(found)


def run(job: Job) -> dict[str, Any]:
    from ...commands.outputs import check_writable

    asked: Arguments = job.arguments
    for path in asked.outputs.values():  # a place that cannot be written to is told before anything is computed
        check_writable(path)
    job.progress(0.0, "reading the corrections")
    volume = asked.image.read()
    found: dict[str, Any] = {}
    share = 0.0  # of the progress
    if asked.outlined is not None:
        share = 1.0 if asked.corrected is None else OUTLINED
        path = asked.outputs["outlined"]
        told = partial(_tell, job, 0.0, share)
        found["outlined"] = outlined.propose(asked.outlined, volume, path, told)
    if asked.corrected is None:
        return {"paths": {name: str(path) for name, path in asked.outputs.items()}, "warnings": volume.notes, **found}
    return _follow(job, asked, asked.corrected, volume, share) | found


def _tell(job: Job, start: float, share: float, fraction: float, message: str) -> None:
    """A part of the work that begins at `start` is so far."""
    job.progress(start + share * fraction, message)


def _follow(job: Job, asked: Arguments, corrected: Corrected, volume: Volume, start: float) -> dict[str, Any]:
    from ...case_doubt import case_doubt
    from ...following import SECONDS, follow
    from ...following.corrections import only
    from ...places import uncertain_places

    segmenter = job.warm.segmenter(corrected.model, asked.device)
    values = [label.value for label in segmenter.bundle.labels]
    corrections = _corrections(corrected, values)
    limit = SECONDS if corrected.seconds is None else corrected.seconds
    followed = follow(volume, segmenter, corrections, seconds=limit, progress=partial(_tell, job, start, 1 - start))
    followed.labels = followed.labels.with_array(only(followed.labels.array, corrections.values))
    result = _as_result(followed)
    paths = {name: path for name, path in asked.outputs.items() if getattr(result, name, None) is not None}
    report = segment.describe(result, segmenter.bundle, volume, asked.outputs) | _told(followed)
    parts = segment.cut(paths, result)
    if "labels" in parts:
        report["structures"] = segment.structures(parts["labels"], segmenter.bundle)
    if followed.uncertainty is not None:
        report["doubt"] = round(case_doubt(followed.labels.array, followed.uncertainty.array), 4)
        found = uncertain_places(followed.uncertainty.array, volume.ijk_to_ras)
        report["places"] = [place.as_dict() for place in found]
    job.progress(1.0, "writing")
    _write_more(asked, followed, segmenter.bundle, report)
    segment.write(paths, parts, result, segmenter.bundle, volume, report, followed.provenance)
    return report


def _corrections(asked: Corrected, values: list[int]) -> Corrections:
    from ...following import Corrections, Plane

    proposal, labels = asked.proposal.read().whole(), asked.labels.read().whole()
    certain = None if asked.certain is None else asked.certain.read().whole() > 0
    right = [Plane(*plane) for plane in asked.right]
    return Corrections.of(proposal, labels, values, right=right, certain=certain, axis=asked.axis)


def _as_result(followed: Followed) -> Result:
    """As what segmenting gives."""
    from ...inference import Result

    return Result(
        followed.labels, followed.uncertainty, followed.device, followed.seconds, followed.volumes_ml, followed.notes
    )


def _told(followed: Followed) -> dict[str, Any]:
    """What is told besides what segmenting tells."""
    names = ("gained", "added_ml", "removed_ml", "share", "wrong", "steps")
    return {**{name: getattr(followed, name) for name in names}, "followed": followed.corrections}


def _write_more(asked: Arguments, followed: Followed, bundle: Bundle, report: dict[str, Any]) -> None:
    """What segmenting does not write: where it is certain, and the adapted network."""
    import numpy as np

    from ...following.session_model import save_session_model
    from ...part import Part

    if "certain" in asked.outputs:
        part = Part.of(followed.certain.astype(np.uint8))
        segment.write_array(asked.outputs["certain"], part.array)
        report["certain"] = part.place()
    if "model" in asked.outputs and followed.gained:
        save_session_model(asked.outputs["model"], bundle, followed)
