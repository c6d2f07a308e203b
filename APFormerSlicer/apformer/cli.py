"""The `apformer` command line: words to commands, and every way to end to a message and an exit status.

Exit status: 0 done, 1 failed, 2 called wrongly, 130 interrupted. Commands import what they need when they run, so
that help and usage errors come at once.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import __version__
from .allocator import keep_freed
from .commands import benchmark, dataset, demo, evaluate, finetune, models, segment, serve, train
from .commands.console import Console, as_user_error
from .commands.finetune import leads
from .errors import APFormerError, UsageError

COMMANDS = (segment, evaluate, train, finetune, dataset, models, benchmark, demo, serve)  # as help lists them
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and leave; abbreviated options are refused."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"The command line cannot be understood: {message}.",
            "Nothing was started.",
            f"See `{self.prog} --help`.",
        )


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; imports none of the libraries that do the work."""
    parser = _Parser(prog="apformer", description="Segment medical images with APFormer models.")
    parser.add_argument("--version", action="version", version=f"apformer {__version__}")
    shared = _Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    shared.add_argument("--quiet", action="store_true", help="show only warnings, errors and the JSON result")
    shared.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands, shared)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. `--help` and `--version` leave through SystemExit(0)."""
    if arguments is None:  # this process is the command's own
        keep_freed()
    words = _joined(sys.argv[1:] if arguments is None else arguments)
    speaks = leads()  # torchrun starts the same command several times; of the others, only errors are heard
    as_json, quiet = speaks and "--json" in words, not speaks or "--quiet" in words
    console = Console(as_json=as_json, quiet=quiet, debug="--debug" in words)
    try:
        with _clean_stdout(as_json or not speaks):
            options = build_parser().parse_args(words)
            return int(options.run(options, console))
    except KeyboardInterrupt:
        console.fail(
            APFormerError(
                "The work was interrupted.",
                "Results that were finished are kept; nothing is half written.",
                "Start the same command again to do the rest.",
            )
        )
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last place where a user can still be told in words
        told = as_user_error(error)
        console.fail(told, error)
        return told.exit_status


def _joined(words: Sequence[str]) -> list[str]:
    """`--roi -60,20,...` as one word: argparse takes a value that begins with a minus sign for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--roi" and "--" not in joined:
            joined[-1] = f"--roi={word}"
        else:
            joined.append(word)
    return joined


def _clean_stdout(clean: bool) -> contextlib.AbstractContextManager[object]:
    """Whatever a library prints goes to stderr; the console keeps the real stdout for its one JSON object."""
    return contextlib.redirect_stdout(sys.stderr) if clean else contextlib.nullcontext()
