"""What a page tells of its pointer and window: read before it reaches VTK, whose C++ ends the process where it errs.

Keys are no business of VTK here: the page's own script has them, and "q" or "e" would have VTK end the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .values import UnreadableError, number

_FURTHEST = 100_000.0  # pixels
_LARGEST_SIDE = 8192  # pixels of a view; an 8K screen has 7680
_LARGEST_AREA = 7680 * 4320  # pixels, of which each takes some 20 bytes while it is drawn
_SHARPEST = 4.0  # pixels of the screen per pixel of the page
_MOST_FINGERS = 10
_BUTTONS = tuple(f"{side}Button{what}" for side in ("Left", "Middle", "Right") for what in ("Press", "Release"))
_TYPES = {
    *_BUTTONS,
    *("MouseMove", "StartMouseMove", "EndMouseMove", "MouseEnter", "MouseLeave"),
    *("StartMouseWheel", "MouseWheel", "EndMouseWheel"),
    *(f"{begin}{gesture}" for begin in ("Start", "", "End") for gesture in ("Pinch", "Pan", "Rotate")),
    *("StartInteractionEvent", "InteractionEvent", "EndInteractionEvent", "Tap", "LongTap"),
}
_WITH_PLACE = (*_BUTTONS, "MouseMove", "MouseWheel", "MouseEnter", "MouseLeave")
_PLACE = number(-_FURTHEST, _FURTHEST)
_NUMBERS = {
    **dict.fromkeys(("x", "y", "w", "h", "rotation"), _PLACE),
    "spinY": number(-1000.0, 1000.0),
    "factor": number(1e-3, 1e3),
}
_SWITCHES = ("shiftKey", "altKey", "ctrlKey", "controlKey", "metaKey")


def read_event(event: object) -> dict[str, Any]:
    """The parts that VTK reads, each of its kind; others are left out. Raises UnreadableError."""
    if not isinstance(event, Mapping) or not isinstance(event.get("type"), str) or event["type"] not in _TYPES:
        raise UnreadableError("no event of a view")
    read: dict[str, Any] = {"type": event["type"]}
    read |= {name: reader(event[name]) for name, reader in _NUMBERS.items() if name in event}
    read |= {name: event[name] in (True, 1) for name in _SWITCHES if name in event}
    if read["type"] in _WITH_PLACE and not {"x", "y", "w", "h"} <= read.keys():
        raise UnreadableError("an event without its place")
    if "translation" in event:
        read["translation"] = _places(event["translation"])
    if "positions" in event:
        read["positions"] = _fingers(event["positions"])
    return read


def read_size(size: object) -> dict[str, Any]:
    """Width, height and pixel ratio of a view. Raises UnreadableError."""
    if not isinstance(size, Mapping):
        raise UnreadableError("no size")
    width, height = (number(0, _LARGEST_SIDE)(size.get(name)) for name in ("w", "h"))
    ratio = number(0.1, _SHARPEST)(size.get("p", 1))
    if width * height * ratio * ratio > _LARGEST_AREA:
        raise UnreadableError("a view larger than any screen")
    return {"w": width, "h": height, "p": ratio}


def _places(value: object) -> list[float]:
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 3:
        raise UnreadableError("no translation")
    return [_PLACE(one) for one in value]


def _fingers(value: object) -> dict[str, dict[str, float]]:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= _MOST_FINGERS:  # VTK divides by their number
        raise UnreadableError("no positions")
    found: dict[str, dict[str, float]] = {}
    for name, place in value.items():
        if not isinstance(place, Mapping):
            raise UnreadableError("no positions")
        found[str(name)[:20]] = {axis: _PLACE(place.get(axis)) for axis in ("x", "y")}
    return found
