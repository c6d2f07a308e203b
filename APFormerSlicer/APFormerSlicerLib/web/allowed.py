"""What a page may say to its session: the values that it may set, and the actions that it may ask for.

Everything else is refused: a page can send any name. Sections of the page declare both where they draw the fields and
buttons (`Desk.field`, `Desk.action`), with a reader of `values` for each value; the gate asks here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from apformer.errors import InputError

from .values import Reader, UnreadableError


class Allowed:
    """Attributes: fields: name of a value in the page's state -> its reader. actions: name -> readers of arguments."""

    def __init__(self) -> None:
        self.fields: dict[str, Reader] = {}
        self.actions: dict[str, tuple[Reader, ...]] = {}
        self._calls: dict[str, Callable[..., object]] = {}

    def add_action(self, name: str, call: Callable[..., object], readers: Sequence[Reader]) -> None:
        """`call` is bound to the arguments that were read; it shows its own errors."""
        self.actions[name] = tuple(readers)
        self._calls[name] = call

    def read_field(self, name: str, value: object) -> Any:
        """Raises InputError: not what is expected. KeyError: the page may not set it."""
        reader = self.fields[name]
        try:
            return reader(value)
        except UnreadableError as error:
            raise _refused(f"The value of {name.replace('_', ' ')} was not taken: {error}.") from error

    def act(self, name: object, arguments: object) -> None:
        """Do what a page asks for; its result is no business of the page.

        Raises:
            InputError: there is no such action, or its arguments are not what is expected.
        """
        if not isinstance(name, str) or name not in self.actions:
            raise _refused("The page asked for something that this server does not do.")
        readers = self.actions[name]
        given = list(arguments) if isinstance(arguments, list | tuple) else None
        if given is None or len(given) > len(readers):
            raise _refused(f"The page asked for {name!r} with other values than it takes.")
        try:
            read = [reader(value) for reader, value in zip(readers, given, strict=False)]
            inspect.signature(self._calls[name]).bind(*read)
        except (UnreadableError, TypeError) as error:
            reason = error if isinstance(error, UnreadableError) else "something is missing"
            raise _refused(f"{name.replace('_', ' ').capitalize()} was not done: {reason}.") from error
        self._calls[name](*read)


def _refused(what: str) -> InputError:
    return InputError(what, "Nothing was changed.", "Choose again, or load the page again.")
