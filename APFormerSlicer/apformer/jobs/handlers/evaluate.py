"""`evaluate`: a label map against its reference. Fields: prediction, reference (files); model, to name the labels;
by_number, to compare values although there are names. The result's "notes" tell what the user should know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages import Fields

if TYPE_CHECKING:
    from ..job import Job


@dataclass(frozen=True)
class Arguments:
    """Two files, whose labels are matched as `apformer evaluate` does; of `model`, only its labels are compared."""

    prediction: Path
    reference: Path
    model: str | None
    by_number: bool


def parse(fields: Fields) -> Arguments:
    files = fields.path("prediction"), fields.path("reference")
    return Arguments(*files, fields.optional_text("model"), fields.flag("by_number"))


def run(job: Job) -> dict[str, Any]:
    from ...commands.evaluate import model_names
    from ...metrics import evaluate
    from ...pairing import read_pair

    asked: Arguments = job.arguments
    job.progress(0.0, "reading")
    how = {} if asked.model is None else model_names(asked.model)
    pair = read_pair(asked.prediction, asked.reference, by_number=asked.by_number, **how)
    job.progress(0.4, "measuring")
    return {**evaluate(pair.prediction, pair.reference, pair.names).as_dict(), "notes": list(pair.notes)}
