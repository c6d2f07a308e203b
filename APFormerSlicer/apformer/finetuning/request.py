"""What is asked of a fine-tuning. Importing this loads no torch; a request with a budget loads it to check that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..bundles.bundle import check_name
from ..errors import ConfigError

ADOPTIONS = ("better", "always", "never")
LEANFORMER = "leanformer"
SHORTEST_SECONDS = 20.0
LONGEST_SECONDS = 30 * 24 * 3600.0


def _refuse(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, "The fine-tuning cannot start.", remedy)


@dataclass(frozen=True)
class Request:
    """A fine-tuning; checked when made, as far as it can be without looking at the data.

    Attributes:
        dataset: folder of a site's data set.
        name: the model to write; a further version of it when it exists.
        base: name, "name@version" or folder of the model to begin with; None trains from scratch.
        network: of a model from nothing, by its registered name, such as "apformer" as published.
        labels: names in the site's label table that are trained; empty: all that occur in completed cases.
        mapping: the site's name of a label -> the base's name for the same structure; equal names need none.
        replace: whether labels of the base that are not trained are dropped; otherwise the new model keeps them, unless
            the base is of other structures; see `plan_labels`.
        budget: "keep=0.3" or "speed=2x"; None gives a dense model, also from a pruned base.
        seconds: wall-clock time for everything, measurements included; not used when `steps` is given.
        steps: of each training, in all: a fixed amount of work, repeatable to the bit on one machine.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps"; threads: CPU threads, None leaves it to torch.
        seed: of everything random.
        rehearsal: whether the base's answers are rehearsed, so that it does not forget.
        adopt: whether the new version becomes the active one: when it is "better", "always" or "never".
        resume: continue the unfinished training of that name.

    Raises:
        ConfigError: a value that cannot be.
    """

    dataset: Path
    name: str
    base: str | None
    labels: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    replace: bool = False
    budget: str | None = None
    seconds: float = 900.0
    steps: int | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 5000
    rehearsal: bool = True
    adopt: str = "better"
    resume: bool = False
    network: str = LEANFORMER

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.budget is not None:
            from ..pruning.budget import Budget

            Budget.parse(self.budget)
        if not (math.isfinite(self.seconds) and SHORTEST_SECONDS <= self.seconds <= LONGEST_SECONDS):
            raise _refuse(
                f"A time of {self.seconds:g} s was given.",
                f"Give between {SHORTEST_SECONDS:g} seconds and {LONGEST_SECONDS / 86400:g} days, such as 15min.",
            )
        if self.steps is not None and self.steps < 2:
            raise _refuse(f"{self.steps} steps were asked for.", "Ask for 2 or more, or give a time instead.")
        if self.adopt not in ADOPTIONS:
            raise _refuse(f"adopt is {self.adopt!r}.", f"Write one of: {', '.join(ADOPTIONS)}.")
        if self.base is not None and self.network != LEANFORMER:
            raise _refuse("A network and a base were named.", "Leave one of them: a base brings its own network.")
        if self.base is None and (self.mapping or self.replace):
            raise _refuse("Labels of a base were mapped or dropped, but there is no base.", "Name a base, or leave it.")
        if not 0 <= self.seed < 2**31:
            raise _refuse(f"The seed is {self.seed}.", "Give a whole number from 0 to 2147483647.")
