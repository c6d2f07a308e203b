"""What can be asked of the worker, one file per kind of job. Heavy imports wait until a job runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..job import Job
from ..messages import Fields
from . import benchmark, check, evaluate, finetune, follow, models, preflight, segment, store


@dataclass(frozen=True)
class Handler:
    """A kind of job.

    Attributes:
        parse: reads a request's fields, in the reading thread and thus quickly; raises RequestError.
        run: does the work with `job.arguments`, what `parse` gave; returns the result's data.
    """

    parse: Callable[[Fields], Any]
    run: Callable[[Job], dict[str, Any]]


HANDLERS: Mapping[str, Handler] = {
    "segment": Handler(segment.parse, segment.run),
    "follow": Handler(follow.parse, follow.run),
    "evaluate": Handler(evaluate.parse, evaluate.run),
    "benchmark": Handler(benchmark.parse, benchmark.run),
    "finetune": Handler(finetune.parse, finetune.run),
    "preflight": Handler(preflight.parse, preflight.run),
    "models": Handler(models.parse, models.run),
    "check": Handler(check.parse, check.run),
    "store": Handler(store.parse, store.run),
}
