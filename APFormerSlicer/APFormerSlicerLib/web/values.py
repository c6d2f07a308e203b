"""Readers of what a page sends: each returns a value of the right kind and range, or says what was expected.

A page's script can be changed by its user, and anybody with the link can write one of their own: a page may send
anything that can be packed. What is not read by one of these never reaches the workflow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import Any

Reader = Callable[[object], Any]
LONGEST_TEXT = 200
_LONGEST_NUMBER = 40  # characters; what a person types into a number field
_LONGEST_SHOWN = 40  # characters of a choice, in a message


class UnreadableError(ValueError):
    """Not what was expected; the text says what that is."""


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnreadableError("yes or no is expected")
    return value


def text(longest: int = LONGEST_TEXT) -> Reader:
    """Words of a person; None, which fields send that were cleared, is "". Control characters become blanks."""

    def read(value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > longest:
            raise UnreadableError(f"a text of at most {longest} characters is expected")
        return "".join(one if one.isprintable() else " " for one in value)

    return read


def color(value: object) -> tuple[float, float, float]:
    """ "#dd8265", as a browser's field for colours gives it: red, green and blue from 0 to 1."""
    if not isinstance(value, str) or not re.fullmatch("#[0-9a-fA-F]{6}", value):
        raise UnreadableError('a colour such as "#dd8265" is expected')
    red, green, blue = (int(value[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def number(low: float, high: float) -> Reader:
    """A finite number in a range, both ends included."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UnreadableError(f"a number from {low:g} to {high:g} is expected")
        return float(value)  # NaN is in no range

    return read


def whole(low: int, high: int) -> Reader:
    """An integer in a range, both ends included."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value % 1:
            raise UnreadableError(f"a whole number from {low} to {high} is expected")
        return int(value)

    return read


def typed_number(low: float, high: float) -> Reader:
    """What is in a number field, kept as it was typed: a finite number, also as a text; "" while it is empty."""
    in_range = number(low, high)

    def read(value: object) -> object:
        if value in (None, ""):
            return ""
        if isinstance(value, str):
            try:
                in_range(float(value[:_LONGEST_NUMBER]) if len(value) <= _LONGEST_NUMBER else math.nan)
            except ValueError as error:
                raise UnreadableError(f"a number from {low:g} to {high:g} is expected") from error
            return value
        return in_range(value)

    return read


def range_of(low: float, high: float) -> Reader:
    """Two numbers, the smaller one first."""
    each = number(low, high)

    def read(value: object) -> list[float]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise UnreadableError("two numbers are expected")
        return sorted(each(one) for one in value)

    return read


def one_of(choices: Collection[object] | Callable[[], Collection[object]]) -> Reader:
    """One of the choices that there are at the moment; equal in kind, too: 1 is not True."""

    def read(value: object) -> object:
        there = choices() if callable(choices) else choices
        for choice in there:
            if type(choice) is type(value) and choice == value:
                return choice
        shown = ", ".join(str(choice)[:_LONGEST_SHOWN] for choice in list(there)[:4])
        raise UnreadableError(f"one of the choices offered is expected ({shown or 'there is none'})")

    return read


def one_of_numbers(choices: Collection[float]) -> Reader:
    """One of these numbers; JavaScript's 1 is Python's 1 or 1.0, depending on how it was packed."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or value not in choices:
            raise UnreadableError(f"one of {', '.join(f'{one:g}' for one in choices)} is expected")
        return float(value)

    return read


def some_of(choices: Collection[object] | Callable[[], Collection[object]]) -> Reader:
    """A list of choices, each at most once."""
    each = one_of(choices)

    def read(value: object) -> list[object]:
        there = choices() if callable(choices) else choices
        if not isinstance(value, list | tuple) or len(value) > len(there):
            raise UnreadableError("a list of choices that are offered is expected")
        return list(dict.fromkeys(each(one) for one in value))

    return read
