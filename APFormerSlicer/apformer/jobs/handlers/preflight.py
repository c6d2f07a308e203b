"""`preflight`: whether a job can run here, where, how long it takes, and why not.

Fields: for ("segment" or "finetune"), then those of that job; of an image that the host holds, "glimpse" may stand in
place of "array": see `glimpse.glimpse_fields`. What makes the job impossible is a result too, with "ok": false; so are
problems of a data set, all of which "problems" lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import APFormerError
from ..exits import explain_error
from ..glimpse import Glimpse
from ..image import Image
from ..messages import Fields
from . import finetune

if TYPE_CHECKING:
    from ..job import Job


@dataclass(frozen=True)
class Segment:
    """A `segment` request that is not made yet."""

    look: Callable[[], Glimpse]
    model: str
    device: str
    roi: str | None


@dataclass(frozen=True)
class Finetune:
    """A `finetune` request that is not made yet: keyword arguments of `finetuning.Request`."""

    request: dict[str, Any]


def parse(fields: Fields) -> Segment | Finetune:
    if fields.choice("for", ("segment", "finetune")) == "finetune":
        return Finetune(finetune.parse(fields))
    if fields.has("outputs"):  # a host may send the very fields of the job
        fields.section("outputs")
    device = fields.text("device", "auto")
    return Segment(_look(fields), fields.text("model"), device, fields.optional_text("roi"))


def _look(fields: Fields) -> Callable[[], Glimpse]:
    """What gives the image, or what is known of it, when the job runs."""
    if fields.has("glimpse"):
        section = fields.section("glimpse")
        return lambda: Glimpse.parse(section)
    image = Image.parse(fields)
    return lambda: Glimpse.of(image.read())


def run(job: Job) -> dict[str, Any]:
    from ..verdict import refusal

    try:
        if isinstance(job.arguments, Segment):
            return _segment(job, job.arguments)
        return _finetune(job, job.arguments)
    except APFormerError as error:
        return refusal(error)
    except ImportError as error:  # MONAI is needed for training only
        return refusal(explain_error(error, None))


def _segment(job: Job, asked: Segment) -> dict[str, Any]:
    from ..preflight import estimate_segment

    job.progress(0.0, "loading the model")
    segmenter = job.warm.segmenter(asked.model, asked.device)
    job.progress(0.3, "trying a piece of the image")
    return estimate_segment(segmenter, asked.look, asked.roi, check=job.check).as_data()


def _finetune(job: Job, asked: Finetune) -> dict[str, Any]:
    from ...commands.finetune_check import check_request
    from ...finetuning import Request
    from ...inference import choose_device

    request = Request(**asked.request)
    device = choose_device(request.device)
    job.progress(0.0, "looking at the data set")
    checked = check_request(request)
    problems = [problem.as_dict() for problem in checked.problems]
    try:
        checked.refuse_blocked()
        job.progress(0.3, "trying a training step")
        from ..preflight_finetune import estimate_finetune

        return estimate_finetune(checked, device, check=job.check).as_data()
    except APFormerError as error:
        from ..verdict import refusal

        return refusal(error, problems=problems)
