"""The curves of a fine-tuning as SVG that stands in the page: Dice, losses, learning rate and kept tokens by step.

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables, so that the curves follow
the light and the dark theme. Names are written by the page as HTML; the drawing holds numbers and fixed words only.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

PHASES = ("adapt", "prune")
SERIES = 8  # colours that the page has for losses
FOLDS_PER_FIGURE = 5  # side by side, so that the numbers stay legible
_INK, _FAINT = "#010101", "#010102"
_LABEL, _SERIES, _PHASE = 0x02, 0x03, 0x04  # the first byte of a stand-in colour; the others are the index
_VARIABLES = {_LABEL: "label", _SERIES: "series", _PHASE: "phase"}


@dataclass(frozen=True)
class Curve:
    """One line: stand-in colour, matplotlib line style, and (step, value) in their order."""

    color: str
    dash: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """One set of axes for one fold."""

    title: str
    curves: tuple[Curve, ...]
    logarithmic: bool = False
    at_most: float | None = None


def folds_of(rows: Sequence[Row]) -> list[Any]:
    """The folds that the log has, in order; [None] when it does not name any."""
    return list(dict.fromkeys(row.get("fold") for row in rows))


def phases_of(rows: Sequence[Row]) -> list[str]:
    """The phases that the log has: known ones in their order, then others, which share one colour."""
    found = dict.fromkeys(str(row["phase"]) for row in rows if row.get("phase"))
    return [name for name in PHASES if name in found] + [name for name in found if name not in PHASES]


def phase_color(phase: str) -> int:
    """Which of the page's --phase-N colours a phase has: always the same one for a known phase."""
    return PHASES.index(phase) if phase in PHASES else len(PHASES)


def losses_of(rows: Sequence[Row]) -> list[str]:
    """The names of the losses without "loss_", the total first."""
    found = list(dict.fromkeys(key.removeprefix("loss_") for row in rows for key in row if key.startswith("loss_")))
    return sorted(found, key=lambda name: name != "total")


def draw_curves(rows: Sequence[Row], labels: Mapping[str, str], fold_title: Mapping[Any, str]) -> Iterator[str]:
    """SVG elements, each with up to five folds.

    Args:
        rows: the log, one row per stretch of training and fold.
        labels: name -> line style ("solid", "dashed", "dotted"); the order is that of --label-0, --label-1, ...
        fold_title: fold -> what to write above its curves, "" for nothing.
    """
    folds = folds_of(rows)
    for start in range(0, len(folds), FOLDS_PER_FIGURE):
        some = folds[start : start + FOLDS_PER_FIGURE]
        by_fold = [[row for row in rows if row.get("fold") == fold] for fold in some]
        panels = [_panels(fold_rows, labels) for fold_rows in by_fold]
        # a quantity that no fold has is left out; one that some lack leaves a gap there
        used = [place for place in range(len(panels[0])) if any(column[place].curves for column in panels)]
        if used:
            grid = [[column[place] for column in panels] for place in used]
            yield _as_svg(grid, by_fold, [fold_title[fold] for fold in some], salt=f"apformer {start}")


def _panels(rows: Sequence[Row], labels: Mapping[str, str]) -> list[Panel]:
    dice = [
        Curve(_stand_in(_LABEL, index), dash, _points(rows, lambda row, name=name: (row.get("dice") or {}).get(name)))
        for index, (name, dash) in enumerate(labels.items())
    ]
    losses = [
        Curve(_stand_in(_SERIES, index % SERIES), "solid", _points(rows, lambda row, key=f"loss_{name}": row.get(key)))
        for index, name in enumerate(losses_of(rows))
    ]
    rate = Curve(_INK, "solid", _points(rows, lambda row: row.get("learning_rate")))
    kept = Curve(_INK, "solid", _points(rows, lambda row: row.get("kept")))
    positive = any(value > 0 for curve in losses for _, value in curve.points)
    return [
        Panel("Dice, validation cases", _drawn(dice), at_most=1.0),
        Panel("Losses", _drawn(losses), logarithmic=positive),
        Panel("Learning rate", _drawn([rate])),
        Panel("Share of tokens kept", _drawn([kept]), at_most=1.0),
    ]


def _drawn(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    return tuple(curve for curve in curves if curve.points)


def _points(rows: Sequence[Row], value_of: Any) -> tuple[tuple[float, float], ...]:
    found = ((_place(row), value_of(row)) for row in rows)
    return tuple((place, float(value)) for place, value in found if value is not None and math.isfinite(value))


def _place(row: Row) -> float:
    """How far the training was, in steps."""
    return float(row["step"])


def _stand_in(kind: int, index: int) -> str:
    return f"#{kind:02x}{index:04x}"


def _as_svg(grid: list[list[Panel]], rows: list[list[Row]], titles: list[str], salt: str) -> str:
    """One fold: its panels two by two. Several: one column per fold, one row per quantity with a common axis."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",  # text stays text: it can be selected, and takes the page's font and colour
        "svg.hashsalt": salt,  # the same curves give the same page, and two figures have no id in common
        "font.size": 8,
        "font.family": "sans-serif",
        "text.color": _INK,
        "axes.labelcolor": _FAINT,
        "xtick.color": _FAINT,
        "ytick.color": _FAINT,
    }
    single = len(titles) == 1
    columns = min(2, len(grid)) if single else len(titles)
    lines = -(-len(grid) // 2) if single else len(grid)
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(10, 0.2 + (2.25 if single else 1.75) * lines), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.subplots(lines, columns, squeeze=False, sharey=False if single else "row")
        flat = list(axes.flat)
        for place, panels in enumerate(grid):
            for column, panel in enumerate(panels):
                ax = flat[place] if single else axes[place][column]
                _draw_panel(ax, panel, rows[column], ticks=6 if single else 4)
                if single:
                    ax.set_title(panel.title, loc="left", fontsize=9)
                elif place == 0:
                    ax.set_title(titles[column], loc="left", fontsize=9)
                if not single and column == 0:
                    ax.set_ylabel(panel.title)
                if single or place == len(grid) - 1:
                    ax.set_xlabel("step")
        for ax in flat[len(grid) :] if single else []:
            ax.set_axis_off()
        return _inline(figure)


def _draw_panel(ax: Axes, panel: Panel, rows: list[Row], ticks: int) -> None:
    from matplotlib.ticker import MaxNLocator

    for phase, first, last in _spans(rows):
        color = _stand_in(_PHASE, phase_color(phase))
        ax.axvspan(first, last, color=color, alpha=0.16, linewidth=0)
    for curve in panel.curves:
        ax.plot(
            *zip(*curve.points, strict=True),
            color=curve.color,
            linestyle=curve.dash,
            linewidth=1.5,
            marker="o" if len(curve.points) < 25 else None,
            markersize=2.6,
        )
    if panel.logarithmic:
        _logarithmic(ax)
    if panel.at_most is not None:
        ax.set_ylim(top=min(panel.at_most, ax.get_ylim()[1]))
    ax.set_xlim(0.0, 1.01 * max(map(_place, rows)))
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    ax.grid(color=_FAINT, alpha=0.22, linewidth=0.6)
    ax.set_facecolor("none")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(_FAINT)


def _logarithmic(ax: Axes) -> None:
    """Ticks at 1, 2 and 5, or at powers of ten over more than two decades, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_yscale("log", nonpositive="mask")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high <= 100 * low else (1.0,)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _spans(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """(phase, the step before its first, its last) of each run of rows in the same phase."""
    before = 0.0
    for phase, group in itertools.groupby(rows, key=lambda row: row.get("phase")):
        last = max(map(_place, group))
        if phase:
            yield str(phase), before, last
        before = last


def _inline(figure: Figure) -> str:
    """The figure as an <svg> element for a page: no declaration, metadata, fixed size, style sheet or group ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for unwanted in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r'(?<=<g) id="[^"]*"'):
        svg = re.sub(unwanted, "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    description = "Curves against steps"
    svg = f'<svg class="curves" role="img" aria-label="{description}" {box[0]}{svg[svg.index(">") :]}'
    return _themed(svg.replace("xlink:href", "href")).strip()


def _themed(svg: str) -> str:
    svg = svg.replace(_INK, "var(--ink)").replace(_FAINT, "var(--soft)")
    kinds = "|".join(f"{kind:02x}" for kind in _VARIABLES)
    # style="fill: #020001": a reference to a clip path or marker has a letter after its #
    return re.sub(
        rf"(?<=: )#({kinds})([0-9a-f]{{4}})\b",
        lambda found: f"var(--{_VARIABLES[int(found[1], 16)]}-{int(found[2], 16)})",
        svg,
    )
