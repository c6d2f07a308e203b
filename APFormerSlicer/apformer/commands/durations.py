"""Durations as people write and read them: "15min" and seconds."""

from __future__ import annotations

import argparse
import re

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_PART = rf"{_NUMBER}\s*(s|min|h|d)"


def seconds_of(text: str) -> float:
    """Seconds of "15min", "90s", "1h", "1.5h", "1h30min"; a number alone is seconds.

    Raises:
        ArgumentTypeError: anything else.
    """
    written = text.strip().lower()
    if re.fullmatch(_NUMBER, written):
        return float(written)
    if not re.fullmatch(rf"(?:{_PART}\s*)+", written):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 15min, 90s, 1h, 1h30min or a number of seconds")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, written))


def in_words(seconds: float) -> str:
    """ "3.2 s", "45 s", "15 min", "2.5 h": as exact as an estimate deserves."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
