"""What a command says: its result on stdout, all else on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..errors import APFormerError
from ..memory import ran_out


class Report(Protocol):
    """Told how much is done, from 0 to 1, and what is being done."""

    def __call__(self, fraction: float, message: str) -> None: ...


def as_user_error(error: Exception) -> APFormerError:
    """`error` itself when it already speaks to the user; otherwise words for it."""
    if isinstance(error, APFormerError):
        return error
    if ran_out(error):
        return APFormerError(
            "The memory of this computer or of its GPU ran out.",
            "The image or the model is too large for what is free.",
            "Close other programs, or segment a part of the image with --roi.",
        )
    return APFormerError(
        f"Something unexpected happened: {type(error).__name__}: {error}.",
        "The work was stopped. This is a fault of the program or of its installation.",
        "Run the command again with --debug, and report what it shows.",
    )


class Console:
    """Where the words of one command go.

    Args:
        as_json: the result is one JSON object; nothing else reaches stdout.
        quiet: only warnings, errors and JSON.
        debug: errors come with their traceback.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.as_json, self.quiet, self.debug = as_json, quiet, debug
        self._stdout = sys.stdout  # the real one: main() redirects sys.stdout while a --json command runs
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:  # a file name that the terminal cannot show must not end the work
                reconfigure(errors="backslashreplace")

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """The outcome of the command, once: `data` with --json, otherwise `text`."""
        if self.as_json:
            print(json.dumps(data, indent=2, allow_nan=False), file=self._stdout, flush=True)
        elif not self.quiet:
            print(text, file=self._stdout, flush=True)

    def say(self, text: str) -> None:
        """Something worth knowing while it works."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Something that the user must see."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def complain(self, error: APFormerError, cause: BaseException | None = None, *, about: str = "") -> None:
        """Show an error on stderr: what, meaning, remedy. `about` names the case it belongs to."""
        if self.debug and cause is not None:
            traceback.print_exception(cause, file=sys.stderr)
        head = f"error: {about}: " if about else "error: "
        print(f"{head}{error.what}\n  {error.meaning}\n  {error.remedy}", file=sys.stderr, flush=True)

    def fail(self, error: APFormerError, cause: BaseException | None = None) -> None:
        """Show the error that ends the command, as JSON too when that was asked for."""
        self.complain(error, cause)
        if self.as_json:
            print(json.dumps({"error": error.as_dict()}, indent=2), file=self._stdout, flush=True)

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """A bar on stderr when it is a terminal; gone when the block ends."""
        if self.quiet or not sys.stderr.isatty():
            yield _unheard
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Terminal(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=1.0)

            def report(fraction: float, message: str) -> None:
                bar.update(task, completed=fraction, description=f"{title}: {message}")

            yield report


def _unheard(fraction: float, message: str) -> None:
    """Progress that nobody watches."""
