"""What users read: errors as (ok, reason), estimates as a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apformer.commands.durations import in_words
from apformer.errors import APFormerError

Checked = tuple[bool, str]
"""Whether something can be done, and the reason with the remedy when it cannot; else what should be known, or ""."""


def sentence(error: APFormerError) -> str:
    """The three parts of an error, as one text."""
    return " ".join(part for part in (error.what, error.meaning, error.remedy) if part)


def checked(check: Callable[[], object]) -> Checked:
    """Whether `check` raises no error that a user can act on."""
    try:
        check()
    except APFormerError as error:
        return False, sentence(error)
    return True, ""


def gigabytes(size: float) -> str:
    """ "1.2 GB", "9 GB", "0.3 GB" """
    size /= 1e9
    return f"{size:.0f} GB" if size >= 9.5 else f"{max(size, 0.1):.1f} GB"


def seconds_in_words(seconds: Sequence[float]) -> str:
    """ "about 20 s", "20 s to 45 s": from the lowest and highest expected."""
    low, high = (in_words(float(number)) for number in (min(seconds), max(seconds)))
    return f"about {high}" if low == high or min(seconds) >= 0.7 * max(seconds) else f"{low} to {high}"


def estimate_line(data: Mapping[str, Any]) -> Checked:
    """The result of a preflight: "CPU, about 20 s; needs 1.2 GB, 9 GB free", or why not."""
    if not data.get("ok"):
        reason = data.get("reason") or {}
        return False, " ".join(filter(None, (str(reason.get(key) or "") for key in ("what", "meaning", "remedy"))))
    parts = [device_in_words(str(data["device"])), seconds_in_words(data["seconds"])]
    memory = ", ".join(
        f"needs {gigabytes(needed)}{_where(place)}, {gigabytes(data['free_bytes'][place])} free"
        for place, needed in data["needed_bytes"].items()
    )
    return True, f"{', '.join(parts)}; {memory}"


def device_in_words(name: str) -> str:
    """ "CPU (2 threads)": the engine writes "cpu" as torch does; names of GPUs as they are."""
    name = name.replace("(1 threads)", "(1 thread)")
    return "CPU" + name[3:] if name.startswith("cpu") else name


def _where(place: str) -> str:
    return {"system": " of main memory", "disk": " of disk space"}.get(place, "")
