"""`follow`: a corrected segmentation to a new proposal for what the user has not touched.

Fields: image or array, model, device, as of `segment`; proposal and labels, the label map as it was proposed and as it
is now, each a part that `arrays.part_fields` wrote; right {k, j, i}, the slices marked as right along each axis of the
array, all of which may be left out; certain, a part that is 1 where earlier corrections had settled a voxel; plane
("k", "j" or "i"), across the slices that the user draws on; seconds; outputs {labels, uncertainty, certain, model}, of
which the last three may be left out.

The result is that of `segment`, with "gained" (where it is false, the labels are those that came, and there is no map
of uncertainty), "followed" (in words), "added_ml" and "removed_ml" by label name, "share", "wrong", "steps". "certain"
goes to a .npy file as the maps do; its place is told under that name. "model" is a folder: the adapted network as a
model of its own, for `segment` jobs of the same session.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..image import Image, PartFile
from ..messages import Fields
from . import segment

if TYPE_CHECKING:
    from ...bundles import Bundle
    from ...following import Corrections, Followed
    from ...inference import Result
    from ..job import Job

AXES = ("k", "j", "i")
LONGEST_S = 600.0
MAPS = ("uncertainty", "certain")


@dataclass(frozen=True)
class Arguments:
    """A request to follow. `right`: (axis of the array, index). `outputs`: "labels", and what else is wanted."""

    image: Image
    model: str
    device: str
    proposal: PartFile
    labels: PartFile
    certain: PartFile | None
    right: tuple[tuple[int, int], ...]
    axis: int
    seconds: float | None
    outputs: dict[str, Path]


def parse(fields: Fields) -> Arguments:
    outputs = fields.section("outputs")
    wanted = [name for name in (*MAPS, "model") if outputs.has(name)]
    paths = {name: outputs.path(name) for name in ("labels", *wanted)}
    outputs.close()
    return Arguments(
        Image.parse(fields),
        fields.text("model"),
        fields.text("device", "auto"),
        PartFile.parse(fields.section("proposal")),
        PartFile.parse(fields.section("labels")),
        PartFile.parse(fields.section("certain")) if fields.has("certain") else None,
        _right(fields),
        AXES.index(fields.choice("plane", AXES, "k")),
        fields.number("seconds", 1.0, LONGEST_S) if fields.has("seconds") else None,
        paths,
    )


def _right(fields: Fields) -> tuple[tuple[int, int], ...]:
    if not fields.has("right"):
        return ()
    section = fields.section("right")
    found = [(axis, index) for axis, name in enumerate(AXES) if section.has(name) for index in section.counts(name)]
    section.close()
    return tuple(found)


def run(job: Job) -> dict[str, Any]:
    from ...case_doubt import case_doubt
    from ...commands.outputs import check_writable
    from ...following import SECONDS, follow
    from ...places import uncertain_places

    asked: Arguments = job.arguments
    for path in asked.outputs.values():  # a place that cannot be written to is told before anything is computed
        check_writable(path)
    job.progress(0.0, "reading the corrections")
    volume = asked.image.read()
    segmenter = job.warm.segmenter(asked.model, asked.device)
    corrections = _corrections(asked, [label.value for label in segmenter.bundle.labels])
    limit = SECONDS if asked.seconds is None else asked.seconds
    followed = follow(volume, segmenter, corrections, seconds=limit, progress=job.progress)
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


def _corrections(asked: Arguments, values: list[int]) -> Corrections:
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
