"""What a fine-tuning shows while it runs: a line for every stretch of it and, on a terminal, a bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .console import Console
from .durations import in_words

if TYPE_CHECKING:
    from ..finetuning import Request

Event = Mapping[str, Any]
Listener = Callable[[Event], None]


@contextmanager
def watched(console: Console, request: Request) -> Iterator[Listener]:
    """Tells the events it is given on stderr, until the block ends."""
    console.say(headline(request))
    if console.quiet or not sys.stderr.isatty():
        yield Lines(console.say)
        return
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Terminal(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("starting", total=1.0, left="")
        lines = Lines(lambda text: bar.console.print(text, markup=False))

        def show(event: Event) -> None:
            if event["event"] == "progress":
                bar.update(task, completed=event["fraction"], description=event["message"], left=left_in_words(event))
            else:
                lines(event)

        yield show


class Lines:
    """Says a line for each event; of progress, only what begins and is not told by such lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._doing = say, ""

    def __call__(self, event: Event) -> None:
        if event["event"] != "progress":
            self._say(as_line(event))
            return
        doing = event["message"].partition(":")[0]  # "measuring: case 3 of 20"
        if doing != self._doing and not doing.startswith("training"):
            self._say(doing)
        self._doing = doing


def headline(request: Request) -> str:
    """What is about to be done."""
    begin = "from scratch" if request.base is None else f"from {request.base}"
    amount = in_words(request.seconds) if request.steps is None else f"{request.steps} steps"
    return f"fine-tuning {request.name} {begin} on {request.dataset} ({amount})"


def as_line(event: Event) -> str:
    """An "epoch", "measured" or "log" event in one line."""
    if event["event"] == "epoch":
        return " · ".join(_stretch(event))
    if event["event"] == "measured":
        return f"{event['which']}: {_dice(event['labels'])}"
    return str(event["message"])


def left_in_words(event: Event) -> str:
    return "" if event["eta_s"] is None else f"{in_words(event['eta_s'])} left"


def _stretch(event: Event) -> Iterator[str]:
    if event["folds"] > 1:
        yield f"training {event['fold']} of {event['folds']}"
    yield f"step {event['step']}"
    yield event["phase"]
    if event["dice"] is not None:
        yield _dice(event["dice"])
    if event["kept"] is not None:
        yield f"{event['kept']:.0%} of tokens kept"
    if event["eta_s"] is not None:
        yield left_in_words(event)
    yield f"learning rate {event['learning_rate']:.2g}"
    losses = dict(event["losses"])
    if "total" in losses:  # absent when no step of the stretch could be taken
        total = losses.pop("total")
        parts = ", ".join(f"{name} {value:.3g}" for name, value in sorted(losses.items()))
        yield f"loss {total:.3g}" + (f" ({parts})" if parts else "")


def _dice(labels: Mapping[str, Any]) -> str:
    """Of a stretch, label -> Dice; of a measurement, label -> figures, without them where the label is unknown."""
    values = {name: value.get("mean_dice") if isinstance(value, Mapping) else value for name, value in labels.items()}
    return "Dice " + ", ".join(f"{name} {figure(value)}" for name, value in values.items())


def figure(value: float | None, digits: int = 3) -> str:
    """A measured value; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
