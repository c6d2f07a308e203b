"""Curves of a training, drawn as two small plots side by side: Dice and how much is looked at closely, and losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

Points = Sequence[tuple[int, float]]
# For losses: Okabe and Ito's colours, which people with colour blindness can tell apart, less the yellow: too faint.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GRID = "#9aa0a8"
WIDTH, HEIGHT = 304, 180  # pixels, of both plots together
LEFT, RIGHT, TOP, BOTTOM = 34, 6, 18, 16  # margins of each
LINE_HEIGHT = 13  # of the legend
LONGEST_NAME = 19  # characters
MARK = 12  # pixels, of the piece of line before a name
LOSS, TOTAL, DICE = "loss: ", "total", "Dice of "


def draw(curves: Mapping[str, Points], color: Any, colors: Mapping[str, str] | None = None) -> Any:
    """A QPixmap with the curves of `workflow.Training.curves`.

    Args:
        color: that of the text, and of shares that are no label's.
        colors: those of labels, by the names of their curves; losses have a palette of their own.
    """
    losses = {name[len(LOSS) :]: points for name, points in curves.items() if name.startswith(LOSS)}
    losses = {TOTAL: losses[TOTAL]} if TOTAL in losses else losses  # its parts have names that only engineers know
    shares = {name.removeprefix(DICE): points for name, points in curves.items() if not name.startswith(LOSS)}
    pixmap = qt.QPixmap(WIDTH, HEIGHT)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter()
    painter.begin(pixmap)
    painter.setRenderHint(qt.QPainter.Antialiasing)
    font = painter.font()
    font.setPixelSize(10)
    painter.setFont(font)
    half = WIDTH // 2
    longest = max((points[-1][0] for points in curves.values() if points), default=1)
    known = {name.removeprefix(DICE): qt.QColor(found) for name, found in (colors or {}).items()}
    own = {name: known.get(name, color) for name in shares}
    palette = {name: qt.QColor(COLORS[number % len(COLORS)]) for number, name in enumerate(losses)}
    _plot(painter, 0, half, _("Dice"), shares, (0.0, 1.0), longest, color, own)
    _plot(painter, half, half, _("Loss"), losses, nice_range(losses.values()), longest, color, palette)
    painter.end()
    return pixmap


def nice_range(curves: Any) -> tuple[float, float]:
    """From 0, or from below what is lowest, to a round number above what is highest."""
    values = [value for points in curves for _number, value in points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    step = 10.0 ** math.floor(math.log10(max(high, -low, 1e-6)))
    bottom = 0.0 if low >= 0 else math.floor(low / step) * step
    return bottom, max(math.ceil(high / step) * step, bottom + step)


def _plot(
    painter: Any,
    left: int,
    width: int,
    title: str,
    curves: Mapping[str, Points],
    bounds: tuple[float, float],
    longest: int,
    color: Any,
    colors: Mapping[str, Any],
) -> None:
    x0, x1, y0, y1 = left + LEFT, left + width - RIGHT, HEIGHT - BOTTOM - LINE_HEIGHT * _legend_rows(curves), TOP
    low, high = bounds
    painter.setPen(qt.QPen(qt.QColor(GRID)))
    for share in (0.0, 0.5, 1.0):
        y = round(y0 + (y1 - y0) * share)
        painter.drawLine(x0, y, x1, y)
    painter.setPen(qt.QPen(color))
    painter.drawText(x0, TOP - 6, title)
    for share in (0.0, 0.5, 1.0):
        painter.drawText(left + 2, round(y0 + (y1 - y0) * share) + 4, f"{low + (high - low) * share:.3g}")
    painter.drawText(x1 - 8 * len(str(longest)), y0 + 12, str(longest))
    for number, (name, points) in enumerate(curves.items()):
        pen = qt.QPen(colors[name])
        pen.setWidth(2)
        painter.setPen(pen)
        places = [
            (
                round(x0 + (x1 - x0) * (epoch - 1) / max(1, longest - 1)),
                round(y0 + (y1 - y0) * (min(max(value, low), high) - low) / (high - low)),
            )
            for epoch, value in points
        ]
        for (xa, ya), (xb, yb) in itertools.pairwise(places):
            painter.drawLine(xa, ya, xb, yb)
        for x, y in places if len(places) == 1 else []:
            painter.drawEllipse(x - 2, y - 2, 4, 4)
        y = y0 + BOTTOM + 10 + LINE_HEIGHT * number
        painter.drawLine(x0, y - 4, x0 + MARK, y - 4)
        painter.setPen(qt.QPen(color))  # a name is read on any background
        painter.drawText(x0 + MARK + 4, y, _short(name))


def _legend_rows(curves: Mapping[str, Points]) -> int:
    return max(1, len(curves))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
