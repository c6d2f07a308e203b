"""`preflight`: whether a job can run here, where, how long it takes, and why not.

Fields: for ("segment" or "finetune"), then those of that job: image or array, model, device, roi; or dataset (folder),
base (model), seconds, device. What makes the job impossible is a result too, with "ok": false.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import APFormerError, InputError
from ..image import Image
from ..messages import Fields

if TYPE_CHECKING:
    from ..job import Job

_LONGEST_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Segment:
    """A `segment` request that is not made yet."""

    image: Image
    model: str
    device: str
    roi: str | None


@dataclass(frozen=True)
class Finetune:
    """A fine-tuning that is not asked for yet. `seconds`: the time it is given."""

    dataset: Path
    base: str
    seconds: float
    device: str


def parse(fields: Fields) -> Segment | Finetune:
    device = fields.text("device", "auto")
    if fields.choice("for", ("segment", "finetune")) == "segment":
        if fields.has("outputs"):  # a host may send the very fields of the job
            fields.section("outputs")
        return Segment(Image.parse(fields), fields.text("model"), device, fields.optional_text("roi"))
    seconds = fields.number("seconds", 1, _LONGEST_SECONDS)
    return Finetune(fields.path("dataset"), fields.text("base"), seconds, device)


def run(job: Job) -> dict[str, Any]:
    from ..preflight import refusal

    try:
        if isinstance(job.arguments, Segment):
            return _segment(job, job.arguments)
        return _finetune(job, job.arguments)
    except APFormerError as error:
        return refusal(error)


def _segment(job: Job, asked: Segment) -> dict[str, Any]:
    from ..preflight import estimate_segment

    job.progress(0.0, "loading the model")
    segmenter = job.warm.segmenter(asked.model, asked.device)
    job.progress(0.3, "trying a piece of the image")
    return estimate_segment(segmenter, asked.image.read, asked.roi, check=job.check).as_data()


def _finetune(job: Job, asked: Finetune) -> dict[str, Any]:
    from ...bundles import ModelLibrary
    from ...inference import choose_device
    from ..preflight import estimate_finetune

    if not asked.dataset.is_dir():
        raise InputError(
            f"{asked.dataset} is not a folder.", "There are no cases to learn from.", "Check the path of the data set."
        )
    device = choose_device(asked.device)
    job.progress(0.0, "loading the model")
    bundle = ModelLibrary().find(asked.base)
    job.progress(0.3, "trying a training step")
    return estimate_finetune(bundle, device, asked.seconds, check=job.check).as_data()
