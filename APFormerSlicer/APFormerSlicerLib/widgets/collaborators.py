"""What the panels are given, as they use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from apformer.errors import APFormerError

from ..workflow import Worker

Ui = Any  # the widgets of APFormerSlicer.ui by name, as slicer.util.childWidgetVariables gives them


class HostedWorker(Worker, Protocol):
    """A worker that the panel ends when it is closed."""

    def close(self) -> None: ...


class Install(Protocol):
    """The Python packages that the work needs."""

    def missing(self, training: bool = False) -> bool:
        """Whether something is; quick, and asks nothing."""
        ...

    def ensure(self, training: bool = False) -> bool:
        """Explain, ask and install where something is missing; False when the user does not want it.

        Raises:
            APFormerError: it could not be installed.
        """
        ...

    def prove(self) -> None:
        """Find out aside whether what is there works, so that `ensure` need not; returns at once."""
        ...

    def close(self) -> None:
        """The panel is being closed."""
        ...

    def report(self) -> str:
        """What is installed and what the computer has, for a question to a colleague."""
        ...


class Asks(Protocol):
    """See `dialogs.Dialogs`; tests answer without windows."""

    def attempt(self, action: Callable[[], object]) -> bool: ...

    def error(self, error: APFormerError) -> None: ...

    def confirm(self, what: str, meaning: str, yes: str) -> bool: ...

    def folder(self, title: str, start: str = "") -> Path | None: ...

    def file_to_open(self, title: str, kinds: str) -> Path | None: ...

    def file_to_write(self, title: str, start: str, kinds: str) -> Path | None: ...
