"""`evaluate`: a label map against its reference. Fields: prediction, reference (files); model, to name the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages import Fields

if TYPE_CHECKING:
    from ..job import Job


@dataclass(frozen=True)
class Arguments:
    """Two files; the labels are those of `model`, else those named in a .seg.nrrd, else all that occur."""

    prediction: Path
    reference: Path
    model: str | None


def parse(fields: Fields) -> Arguments:
    return Arguments(fields.path("prediction"), fields.path("reference"), fields.optional_text("model"))


def run(job: Job) -> dict[str, Any]:
    from ...files import read_volume
    from ...metrics import evaluate

    asked: Arguments = job.arguments
    names = _names(asked)
    job.progress(0.0, "reading")
    prediction = read_volume(asked.prediction)
    job.progress(0.2, "reading")
    reference = read_volume(asked.reference)
    job.progress(0.4, "measuring")
    return evaluate(prediction, reference, names).as_dict()


def _names(asked: Arguments) -> dict[int, str] | None:
    from ...bundles import ModelLibrary
    from ...files import read_segment_names, suffix_of

    if asked.model is not None:
        return {label.value: label.name for label in ModelLibrary().find(asked.model).labels}
    for path in (asked.reference, asked.prediction):
        if suffix_of(path) == ".seg.nrrd":
            return read_segment_names(path)
    return None
