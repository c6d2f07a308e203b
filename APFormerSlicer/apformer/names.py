"""When two names of structures are the same: one rule for every place that compares labels, segments and tables.

Two names are the same when they are equal after canonical composition (Unicode NFC), case folding, and with blanks
trimmed and runs of them collapsed to one: "Anterior hippocampus" is " anterior  Hippocampus", and an "ä" typed as one
character is an "a" with a combining diaeresis, as macOS stores file names. A blank is what Unicode calls white space
(no-break spaces too), and the zero-width characters that come along when text is copied from pages.

"_" and "-" are letters like others: "left-kidney", "left_kidney" and "left kidney" are three names. Two structures that
were taken for one cannot be told apart afterwards, whereas a name that was not recognised is told wherever names are
compared, with the way to say that it is the same. `alike` finds such near misses for that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"), " ")
_MARKS = str.maketrans("_-.", "   ")


def plain(name: str) -> str:
    """What of a name counts; two names are the same when this is equal."""
    folded = unicodedata.normalize("NFD", name.translate(_ZERO_WIDTH)).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def same(first: str, second: str) -> bool:
    """Whether two names stand for one structure."""
    return plain(first) == plain(second)


def find(name: str, among: Iterable[str]) -> str | None:
    """The first name that is the same as `name`, as it is written there."""
    wanted = plain(name)
    return next((other for other in among if plain(other) == wanted), None)


def alike(name: str, among: Iterable[str]) -> str | None:
    """The first name that differs from `name` only by "_", "-" or "." where the other has a blank: worth a question."""
    wanted = plain(name.translate(_MARKS))
    return next((other for other in among if plain(other.translate(_MARKS)) == wanted), None)


def twice(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the names that are the same, as they are written; None when all differ."""
    seen: dict[str, str] = {}
    for name in names:
        key = plain(name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def paired(names: Iterable[str]) -> bool:
    """Whether two of them differ in the side alone, as "Left kidney" and "Right kidney" do."""
    words = {tuple(plain(name).split()) for name in names}
    return any(tuple("right" if word == "left" else word for word in name) in words - {name} for name in words)
