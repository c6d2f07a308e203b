"""`benchmark`: what segmenting costs on this machine.

Fields: what ("segment" or "pruning"); device; quick; rounds; for "segment" also model and untrained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..messages import Fields

if TYPE_CHECKING:
    from ..job import Job

_MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Arguments:
    """As the options of `apformer benchmark`."""

    what: str
    device: str
    quick: bool
    rounds: int | None
    model: str
    untrained: bool


def parse(fields: Fields) -> Arguments:
    what = fields.choice("what", ("segment", "pruning"), "segment")
    segments = what == "segment"
    return Arguments(
        what,
        fields.text("device", "auto"),
        fields.flag("quick"),
        int(fields.number("rounds", 1, _MOST_ROUNDS)) if fields.has("rounds") else None,
        fields.text("model", "liver-ct") if segments else "",
        fields.flag("untrained") if segments else False,
    )


def run(job: Job) -> dict[str, Any]:
    asked: Arguments = job.arguments
    if asked.what == "pruning":
        from ...benchmarks import pruning

        return pruning.run(asked.device, quick=asked.quick, rounds=asked.rounds, say=job.say)
    from ...benchmarks import segment

    return segment.run(
        asked.model,
        asked.device,
        quick=asked.quick,
        untrained=asked.untrained,
        rounds=asked.rounds,
        say=job.say,
    )
