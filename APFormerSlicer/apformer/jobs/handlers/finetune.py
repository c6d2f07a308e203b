"""`finetune`: a site's own cases to a new version of a model.

Fields: dataset (folder), name; base (a model; null trains from scratch), labels (names), mapping {site's name: base's},
replace, budget, seconds or steps, device, threads, seed, rehearsal, adopt, resume: see `finetuning.Request`, whose
defaults hold for what is left out. `metrics` events tell what was "measured" and, as "epoch", how far
training is, as their key "event" says. A cancelled job is continued by the same request with resume.

It runs at a low priority; still, a host gives it a worker of its own, since other requests wait until it is over.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from ..messages import Fields
from ..priority import run_lowered

if TYPE_CHECKING:
    from ...finetuning import Outcome
    from ..job import Job

_LONGEST_SECONDS = 30 * 24 * 3600
_MOST_STEPS = 10_000_000
_MOST_THREADS = 1024
_MOST_SEED = 2**31 - 1
_ADOPTIONS = ("better", "always", "never")


def parse(fields: Fields) -> dict[str, Any]:
    """Keyword arguments of `finetuning.Request`, which is made by the job: its module loads torch."""
    asked: dict[str, Any] = {
        "dataset": fields.path("dataset"),
        "name": fields.text("name"),
        "base": fields.optional_text("base"),
        "labels": fields.texts("labels"),
        "mapping": fields.texts_by_name("mapping"),
        "replace": fields.flag("replace"),
        "budget": fields.optional_text("budget"),
        "device": fields.text("device", "auto"),
        "rehearsal": fields.flag("rehearsal", True),
        "adopt": fields.choice("adopt", _ADOPTIONS, "better"),
        "resume": fields.flag("resume"),
    }
    if fields.has("seconds"):
        asked["seconds"] = float(fields.number("seconds", 0, _LONGEST_SECONDS))
    for name, low, high in (("steps", 1, _MOST_STEPS), ("threads", 1, _MOST_THREADS), ("seed", 0, _MOST_SEED)):
        if fields.has(name):
            asked[name] = fields.whole(name, low, high)
    return asked


def run(job: Job) -> dict[str, Any]:
    from ...commands.finetune import describe_outcome

    job.warm.release()
    try:
        return describe_outcome(run_lowered(lambda: _finetune(job)))
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # the training's frames hold the network
        raise
    finally:
        job.warm.release()  # what torch keeps of the GPU's memory


def _finetune(job: Job) -> Outcome:
    from ...finetuning import Request, finetune

    def tell(event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            job.progress(event["fraction"], event["message"], event["eta_s"])
        elif kind == "log":
            job.say(event["message"])
        else:
            job.metrics(event)

    return finetune(Request(**job.arguments), on_event=tell, check=job.check)
