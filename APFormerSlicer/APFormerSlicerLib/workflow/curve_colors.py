"""Colours of a training's curves: those of the segments that they are of, told apart from the background."""

from __future__ import annotations

from collections.abc import Iterable

from apformer.bundles import Label
from apformer.names import find

Rgb = tuple[int, int, int]

LEAST_CONTRAST = (
    3.0  # of a line to what is behind it: WCAG 2.2, 1.4.11, https://www.w3.org/TR/WCAG22/#non-text-contrast
)
_DICE_OF = "Dice of "
_STEPS = 20


def dice_curve(label: str) -> str:
    """What the curve of a label is called."""
    return f"{_DICE_OF}{label}"


def segment_color(curve: str, labels: Iterable[Label], background: Rgb) -> str | None:
    """ "#dd8265" for the Dice of a label: the colour of its segments, as much lighter or darker as it takes to be seen
    on the background; None for a curve of something else, or of a label that is not known."""
    known = {label.name: label for label in labels}
    name = find(curve.removeprefix(_DICE_OF), list(known)) if curve.startswith(_DICE_OF) else None
    return None if name is None else in_hex(visible_on(known[name].color, background))


def visible_on(color: Rgb, background: Rgb) -> Rgb:
    """The colour, mixed with as much white (on a dark background) or black as `LEAST_CONTRAST` takes, and no more."""
    end = (255, 255, 255) if contrast((255, 255, 255), background) > contrast((0, 0, 0), background) else (0, 0, 0)
    mixed = color
    for step in range(_STEPS + 1):
        share = step / _STEPS
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, end, strict=True))
        mixed = red, green, blue
        if contrast(mixed, background) >= LEAST_CONTRAST:
            break
    return mixed


def contrast(one: Rgb, other: Rgb) -> float:
    """1 (the same) to 21 (black and white): the contrast ratio of WCAG 2.2."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def in_hex(color: Rgb) -> str:
    red, green, blue = color
    return f"#{red:02x}{green:02x}{blue:02x}"


def _luminance(color: Rgb) -> float:
    """Relative luminance of sRGB, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
