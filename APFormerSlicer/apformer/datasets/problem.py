"""A problem of a data set in plain words, and how cases are named in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import APFormerError
from .case import SiteCase

BLOCKS, LOOK = "blocks training", "worth a look"
_MOST_NAMED = 5


@dataclass(frozen=True)
class Problem:
    """`kind` names the check; `severity` is BLOCKS or LOOK; `cases` are the names of those concerned."""

    kind: str
    severity: str
    cases: tuple[str, ...]
    what: str
    meaning: str
    remedy: str

    def as_dict(self) -> dict[str, Any]:
        return vars(self) | {"cases": list(self.cases)}


def from_error(kind: str, severity: str, cases: Sequence[SiteCase], error: APFormerError) -> Problem:
    return Problem(kind, severity, names(cases), error.what, error.meaning, error.remedy)


def names(cases: Sequence[SiteCase]) -> tuple[str, ...]:
    return tuple(case.name for case in cases)


def listing(cases: Sequence[SiteCase], of: Callable[[SiteCase], str] | None = None) -> str:
    shown = [case.name + (f" ({of(case)})" if of else "") for case in cases[:_MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(cases) - _MOST_NAMED} more" if len(cases) > _MOST_NAMED else "")


def many(cases: Sequence[SiteCase]) -> str:
    return "1 case is" if len(cases) == 1 else f"{len(cases)} cases are"


def mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{step:.3g}" for step in spacing) + " mm"
