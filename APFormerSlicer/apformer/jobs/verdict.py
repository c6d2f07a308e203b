"""What a preflight answers: a plain yes or no with the reason, and the figures behind it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..commands.durations import in_words
from ..errors import APFormerError

SLOWEST = 1.5  # other programs, and images that are harder than the sample

Free = Callable[[torch.device], int]

_MEMORY = (
    "It would fail, or slow the whole computer down.",
    "Close other programs, use a region of interest, or choose another device.",
)
_TRAINING_MEMORY = (
    "It would fail, or slow the whole computer down.",
    "Close other programs, or choose another device or a base with smaller patches.",
)
_DISK = (
    "The training would stop when the disk is full.",
    "Free some disk space, or move the data set to a larger disk.",
)


@dataclass(frozen=True)
class Verdict:
    """An estimate.

    Attributes:
        device: in words.
        needed_bytes, free_bytes: by "device", "system" where the device has memory of its own, and "disk" for a
            training.
        seconds: lowest and highest expected, together.
        counts: what would be worked on.
        warnings: what the user should know beforehand.
        about: more of the result's data; "work", a sentence, becomes a part of the reason.
    """

    device: str
    needed_bytes: dict[str, int]
    free_bytes: dict[str, int]
    seconds: tuple[float, float]
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """A result's data: the estimate with "ok" and "reason"."""
        short = [name for name, needed in self.needed_bytes.items() if needed > self.free_bytes[name]]
        return {
            "ok": not short,
            "reason": self._too_little(short[0]) if short else self._yes(),
            "device": self.device,
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "seconds": [round(seconds, 2) for seconds in self.seconds],
            "counts": self.counts,
            "warnings": list(self.warnings),
            **self.about,
        }

    def _yes(self) -> dict[str, str]:
        low, high = map(in_words, self.seconds)
        takes = f"It takes about {low}." if low == high else f"It takes about {low} to {high}."
        return {
            "what": f"It can run on {self.device}.",
            "meaning": f"{self.about['work']} {takes}" if "work" in self.about else takes,
            "remedy": "",
        }

    def _too_little(self, place: str) -> dict[str, str]:
        where = {
            "device": f"on {self.device}",
            "system": "in this computer's memory",
            "disk": "of disk space for the data set",
        }[place]
        meaning, remedy = _DISK if place == "disk" else _TRAINING_MEMORY if "work" in self.about else _MEMORY
        needed, free = _gib(self.needed_bytes[place]), _gib(self.free_bytes[place])
        return {"what": f"It needs about {needed} {where}, and {free} are free.", "meaning": meaning, "remedy": remedy}


def refusal(error: APFormerError, **about: Any) -> dict[str, Any]:
    """A result's data for what cannot run at all."""
    return {"ok": False, "reason": error.as_dict(), **about}


def free_places(device: torch.device, free: Free) -> dict[str, int]:
    """Free bytes by place; a device that shares the system's memory is one place."""
    places = {"device": free(device)}
    return places | ({"system": free(torch.device("cpu"))} if device.type == "cuda" else {})


def needed_places(device: torch.device, on_device: int, in_system: int) -> dict[str, int]:
    """Needed bytes by place; a device that shares the system's memory needs both."""
    if device.type == "cuda":
        return {"device": on_device, "system": in_system}
    return {"device": on_device + in_system}


def free_disk(folder: Path) -> int:
    """Bytes that can still be written below an existing `folder`."""
    return shutil.disk_usage(folder).free


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
