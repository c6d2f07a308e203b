"""Curves of a training, as SVG of a few polylines: nothing else is needed to draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 300, 90  # of a chart, in the units of its viewBox
_MARGIN = 4
BACKGROUND = (14, 18, 23)  # of a plot, as page.css has it
_NEUTRAL = "#9aa7b5"  # of shares that are no label's
_COLORS = ("#4fa3c7", "#d9a552", "#6fb58a", "#c58fd0", "#e0736d")
_MOST_POINTS = 300

Curve = Sequence[tuple[int, float]]


def charts(curves: Mapping[str, Curve], segments: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One chart for losses, from 0 to the highest, and one for shares, such as Dice, from 0 to 1.

    Args:
        segments: the colours of labels, by the names of their curves; losses have a palette of their own.

    Returns:
        title, top (what the upper edge means), svg and lines (name, color, last value) of each chart that has any.
    """
    losses = {
        name.removeprefix("loss: ").replace("_", " "): curve
        for name, curve in curves.items()
        if name.startswith("loss: ")
    }
    shares = {name: curve for name, curve in curves.items() if not name.startswith("loss: ")}
    palette = {name: _COLORS[number % len(_COLORS)] for number, name in enumerate(losses)}
    own = {name: (segments or {}).get(name, _NEUTRAL) for name in shares}
    found = (
        _chart("Loss", losses, _top(losses), palette),
        _chart("Dice and share looked at closely", shares, 1.0, own),
    )
    return [chart for chart in found if chart["lines"]]


def _chart(title: str, curves: Mapping[str, Curve], top: float, colors: Mapping[str, str]) -> dict[str, Any]:
    last = max((curve[-1][0] for curve in curves.values()), default=1)
    lines = [{"name": name, "color": colors[name], "last": f"{curve[-1][1]:.3f}"} for name, curve in curves.items()]
    drawn = "".join(
        f'<polyline fill="none" stroke="{colors[name]}" stroke-width="1.5" vector-effect="non-scaling-stroke" '
        f'points="{_points(curve, last, top)}"/>'
        for name, curve in curves.items()
    )
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none">{drawn}</svg>'
    return {"title": title, "top": f"{top:.3g}", "svg": svg, "lines": lines}


def _points(curve: Curve, last: int, top: float) -> str:
    """ "4.0,86.0 300.0,4.0": row 1 at the left, row `last` at the right."""
    thinned = [*curve[:: math.ceil(len(curve) / _MOST_POINTS)], curve[-1]]
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    span = max(last - 1, 1)
    places = (
        (_MARGIN + width * min((row - 1) / span, 1.0), _MARGIN + height * (1.0 - min(max(value / top, 0.0), 1.0)))
        for row, value in thinned
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _top(curves: Mapping[str, Curve]) -> float:
    """The highest value; 1 when there is none above 0."""
    return max((value for curve in curves.values() for _, value in curve if value > 0.0), default=1.0)
