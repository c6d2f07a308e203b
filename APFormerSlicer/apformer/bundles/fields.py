"""Strict reading of the JSON files in a bundle: bounded, typed, finite, every refusal a BundleError.

A bundle may come from anywhere, so nothing here trusts the text: sizes are limited before parsing, repeated keys and
NaN are refused, and each value is asked for with the type and range it must have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from ..errors import BundleError

# Larger than any description we write (the cards are a few kB), small enough to parse in milliseconds.
LARGEST_JSON_BYTES = 1 << 20
LONGEST_TEXT = 20_000


def malformed(what: str) -> BundleError:
    """The error for a bundle file whose content is not what the format says."""
    return BundleError(
        what,
        "The model's description cannot be relied on, so the model is not used.",
        "Fetch the model again from where it came from, or choose another model.",
    )


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """One JSON object from `content`; `where` names the file in errors.

    Raises:
        BundleError: too large, not UTF-8, not JSON, not an object, repeated keys, numbers that are not finite,
            nesting too deep.
    """
    if len(content) > LARGEST_JSON_BYTES:
        raise malformed(f"{where} is larger than {LARGEST_JSON_BYTES} bytes.")
    try:
        data = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise malformed(f"{where} is not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise malformed(f"{where} holds {_kind(data)} where an object is expected.")
    return data


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return data


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:32]} is out of range")
    return number


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")


class Fields:
    """One JSON object read field by field; `where` is its place, used in messages ("metadata.json, labels[0]")."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise malformed(f"{where} must be an object, not {_kind(data)}.")
        self.data: dict[str, Any] = data
        self.where = where

    def only(self, names: Iterable[str]) -> None:
        """Refuse fields that are not in `names`: an ignored setting would silently change the result."""
        unknown = sorted(set(self.data) - set(names))
        if unknown:
            raise malformed(f"{self.where} has unknown fields: {', '.join(name[:40] for name in unknown[:5])}.")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.data.get(name) is not None

    def value(self, name: str) -> Any:
        """The field as it is; it must be there."""
        if name not in self.data:
            raise malformed(f"{self.where} lacks '{name}'.")
        return self.data[name]

    def text(self, name: str, longest: int = LONGEST_TEXT) -> str:
        """A text that is not blank, of at most `longest` characters, without control characters."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise malformed(f"{self.where}, '{name}' must be a text that is not blank.")
        if len(value) > longest:
            raise malformed(f"{self.where}, '{name}' is longer than {longest} characters.")
        # line breaks and tabs are text; other control characters could steer a terminal
        if any(not character.isprintable() and character not in "\n\t" for character in value):
            raise malformed(f"{self.where}, '{name}' contains control characters.")
        return value

    def integer(self, name: str, lowest: int, highest: int) -> int:
        """A whole number in [lowest, highest]."""
        return check_integer(self.value(name), lowest, highest, f"{self.where}, '{name}'")

    def number(self, name: str, lowest: float, highest: float) -> float:
        """A finite number in [lowest, highest]."""
        return check_number(self.value(name), lowest, highest, f"{self.where}, '{name}'")

    def flag(self, name: str) -> bool:
        """true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise malformed(f"{self.where}, '{name}' must be true or false.")
        return value

    def items(self, name: str, longest: int) -> list[Any]:
        """A list of at most `longest` items."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > longest:
            raise malformed(f"{self.where}, '{name}' must be a list of at most {longest} items.")
        return value

    def section(self, name: str) -> Fields:
        """An object inside this one."""
        return Fields(self.value(name), f"{self.where}, '{name}'")


def check_integer(value: object, lowest: int, highest: int, where: str) -> int:
    """`value` when it is a whole number in [lowest, highest]; a BundleError naming `where` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise malformed(f"{where} must be a whole number from {lowest} to {highest}.")
    return value


def check_number(value: object, lowest: float, highest: float, where: str) -> float:
    """`value` as a float when it is a finite number in [lowest, highest]; a BundleError naming `where` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= highest:
        raise malformed(f"{where} must be a number from {lowest:g} to {highest:g}.")
    return float(value)
