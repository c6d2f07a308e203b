"""`apformer finetune`: a site's own cases to a new version of a model, adopted only if it is better."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import APFormerError, UsageError
from . import options as option
from .console import Console
from .durations import seconds_of
from .segment import describe_model

if TYPE_CHECKING:
    from ..finetuning import Outcome, Request

_DESCRIPTION = """\
Train a model further on the completed cases of a data set (see `apformer dataset`), or train one from scratch. The
base is measured on the data set's validation cases first, the result on the same ones; the new version becomes the
active one only if it is better, and `apformer models rollback` goes back. Ctrl-C stops after the present step, and
--resume continues. Under torchrun all processes train together."""
_INTERRUPTED = 128 + signal.SIGINT  # as shells report it
_ADOPTIONS = ("better", "always", "never")
_NETWORKS = ("leanformer", "apformer", "mobile_utr")
_FROM_SCRATCH = "none"


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "a site's own cases to a new version of a model"
    parser = commands.add_parser("finetune", parents=[shared], help=text, description=_DESCRIPTION)
    add = parser.add_argument
    add("--data", required=True, type=option.path, metavar="SITE", help="the data set's folder")
    add(
        "--base",
        default=_FROM_SCRATCH,
        metavar=f"{option.MODEL}|none",
        help="the model to begin with, may be of other structures; none (default) trains from scratch",
    )
    add(
        "--network",
        choices=_NETWORKS,
        default=_NETWORKS[0],
        help="of a model from scratch: our own form of APFormer (default), APFormer as published, or MobileUtr",
    )
    add("-o", "--output", required=True, metavar="NAME", help="the model to write; a new version of it when it exists")
    add(
        "--labels",
        action="append",
        default=[],
        metavar="NAMES",
        help="what to train, such as RV,Myo; can be repeated (default: all labels of completed cases)",
    )
    add(
        "--map",
        action="append",
        default=[],
        type=_pair,
        metavar="SITE=BASE",
        help="the data set's label SITE is what the base calls BASE; equal names need none",
    )
    add(
        "--replace-labels",
        action="store_true",
        help="drop the labels of the base that are not trained; those of a base of other structures are, always",
    )
    add("--budget", metavar="BUDGET", help="also prune: keep=0.3 (share of tokens) or speed=2x")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--time", type=seconds_of, metavar="TIME", help="for all: 15min (default), 90s, 1h, 1h30min")
    amount.add_argument("--steps", type=option.positive, metavar="N", help="a fixed amount of work instead")
    option.add_device(parser)
    add("--threads", type=option.positive, metavar="N", help="threads to compute with (CPU)")
    add("--seed", type=_whole, metavar="N", help="of everything random (default: 5000)")
    add("--no-rehearsal", action="store_true", help="do not keep the new model near the base: it may forget")
    add("--adopt", choices=_ADOPTIONS, default="better", help="when the new version becomes the active one")
    add("--resume", action="store_true", help="continue the unfinished training of NAME")
    parser.set_defaults(run=run)


def _pair(text: str) -> tuple[str, str]:
    site, equals, base = (part.strip() for part in text.partition("="))
    if not (site and equals and base):
        raise argparse.ArgumentTypeError(f"{text!r} is not SITE=BASE, two names of labels")
    return site, base


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def run(options: argparse.Namespace, console: Console) -> int:
    request = _request(options)
    try:
        with stoppable() as check:
            return _run(request, console, check) if leads() else _join(request, check)
    except KeyboardInterrupt:
        if leads():
            console.fail(interruption(request))
        return _INTERRUPTED


def leads() -> bool:
    """Whether this is the process that speaks: alone, or the first one that `torchrun` started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def _run(request: Request, console: Console, check: Callable[[], None]) -> int:
    from ..finetuning import finetune
    from .finetune_check import check_request, label_lines
    from .finetune_report import as_text, warnings_after
    from .finetune_view import watched

    checked = check_request(request)
    for problem in checked.problems:
        console.say(f"{problem.severity}: {problem.what}\n  {problem.meaning}\n  {problem.remedy}")
    checked.refuse_blocked()
    for line in label_lines(checked.plan()):
        console.say(line)
    with watched(console, request) as on_event:
        outcome = finetune(request, on_event=on_event, check=check)
    for warning in warnings_after(outcome.summary, {problem.what for problem in checked.found}):
        console.warn(warning)
    console.result(describe_outcome(outcome), as_text(outcome))
    return 0


def _join(request: Request, check: Callable[[], None]) -> int:
    """Train along with the first process, in silence."""
    from ..finetuning import finetune

    finetune(request, check=check)
    return 0


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """What a fine-tuning gave, ready for JSON."""
    return {
        **outcome.summary,
        "model": describe_model(outcome.bundle),
        "adopted": outcome.adopted,
        "verdict": outcome.verdict,
        "report": str(outcome.report),
        "page": str(outcome.page),
    }


def interruption(request: Request) -> APFormerError:
    """What to tell a user who has stopped a fine-tuning."""
    from ..finetuning.folder import PLAN, TRAININGS

    folder = request.dataset / TRAININGS / request.name
    if not (folder / PLAN).exists():
        return APFormerError(
            "The fine-tuning was interrupted before it began.",
            "Nothing was trained, and no model was changed.",
            "Start the same command again.",
        )
    return APFormerError(
        "The fine-tuning was interrupted.",
        f"What was learned until the last checkpoint is kept in {folder}; no model was changed.",
        "Continue with the same command and --resume, or delete that folder to give it up.",
    )


def _request(options: argparse.Namespace) -> Request:
    """The request; a value that cannot be is a wrong call."""
    from ..finetuning.request import Request

    given = {"seconds": options.time, "steps": options.steps, "seed": options.seed}
    try:
        return Request(
            dataset=options.data,
            name=options.output,
            base=None if options.base == _FROM_SCRATCH else options.base,
            labels=_names(options.labels),
            mapping=dict(options.map),
            replace=options.replace_labels,
            budget=options.budget,
            device=options.device,
            threads=options.threads,
            rehearsal=not options.no_rehearsal,
            adopt=options.adopt,
            resume=options.resume,
            network=options.network,
            **{name: value for name, value in given.items() if value is not None},
        )
    except APFormerError as error:
        raise UsageError(error.what, error.meaning, error.remedy) from error


def _names(texts: list[str]) -> tuple[str, ...]:
    """Label names; those of a data set hold no comma."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """A function that raises KeyboardInterrupt once Ctrl-C was pressed, between two steps of the work and not within.

    A second Ctrl-C stops at once, wherever the work is. Outside of the main thread, which alone hears Ctrl-C, nothing
    is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    def check() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, ask)
    try:
        yield check
    except Exception:
        check()  # under torchrun, the other processes' connections break when one stops
        raise
    finally:
        signal.signal(signal.SIGINT, before)
