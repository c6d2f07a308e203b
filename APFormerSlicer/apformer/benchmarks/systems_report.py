"""The results of `apformer benchmark systems` as Markdown and as a plot of accuracy against cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .systems_entrants import ENTRANTS

Entry = Mapping[str, Any]
# Of an entry: key, what it is called, and how many of it are one on the axis.
_COSTS = (
    ("gmac", "GMAC, q.k and A.v included", 1.0),
    ("parameters", "million parameters", 1e6),
    ("cpu_ratio", "time on the processor, x {baseline}", 1.0),
)


def render(done: Mapping[str, Any]) -> str:
    """One table per data set; figures are means over seeds."""
    settings = done["settings"]
    lines: list[str] = []
    for dataset, rows in _grouped(done).items():
        first = rows[0][0]
        labels = list(first["labels"])
        size = " x ".join(map(str, first.get("size", settings["size"])))  # of volumes it is the data set's own
        lines += [
            f"**{dataset}**, {size}, {settings['minutes']:g} minutes of training each, "
            f"{first['patients']['training']} patients or images train, {first['patients']['validation']} validate.",
            "",
        ]
        extra = [name for name in ("se", "sp", "acc", "iou") if name in first["labels"][labels[0]]]
        unit = first["labels"][labels[0]]["hd95_unit"]
        heads = ["network", "seeds", *(f"{name}: Dice, HD95 {unit}" for name in labels), *(n.upper() for n in extra)]
        heads += ["parameters", "GMAC", "as published", "ms", f"x {settings['baseline']}", "training images/s"]
        lines += ["| " + " | ".join(heads) + " |", "|---|" + "---|" * (len(heads) - 1)]
        lines += ["| " + " | ".join(_row(entries, labels, extra)) + " |" for entries in rows]
        lines.append("")
    return "\n".join(lines)


def _grouped(done: Mapping[str, Any]) -> dict[str, list[list[Entry]]]:
    """Data set -> networks -> entries, one per seed."""
    found: dict[str, dict[str, list[Entry]]] = {}
    for entry in done["entries"].values():
        found.setdefault(entry["dataset"], {}).setdefault(entry["network"], []).append(entry)
    return {dataset: list(networks.values()) for dataset, networks in found.items()}


def _row(entries: Sequence[Entry], labels: Sequence[str], extra: Sequence[str]) -> list[str]:
    def mean(*keys: str) -> float | None:
        values = [_at(entry, keys) for entry in entries]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    cells = [entries[0]["network"], str(len(entries))]
    for label in labels:
        distance = mean("labels", label, "hd95")
        cells.append(f"{mean('labels', label, 'dice'):.3f}, {'-' if distance is None else f'{distance:.1f}'}")
    cells += [f"{mean('labels', labels[0], name):.3f}" for name in extra]
    cells += [f"{mean('parameters'):,.0f}", f"{mean('gmac'):.3f}", f"{mean('gmac_without_attention'):.3f}"]
    cells += [f"{mean('cpu_ms'):.1f}", f"{mean('cpu_ratio'):.2f}", f"{mean('training', 'images_per_second'):.1f}"]
    return cells


def _at(entry: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        entry = entry[key]
    return entry


def draw(done: Mapping[str, Any], path: Path) -> None:
    """Mean Dice over labels against GMAC, parameters and time: one row of axes per data set, a number per network.

    Colours tell the systems, lighter forms are hollow. With several seeds, a number stands at their mean and a line
    spans them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    groups = _grouped(done)
    networks = {entries[0]["network"]: entries[0]["system"] for rows in groups.values() for entries in rows}
    numbers = {name: number for number, name in enumerate(networks, 1)}
    systems = list(dict.fromkeys(networks.values()))
    styles = {name: _style(name, f"C{systems.index(system)}") for name, system in networks.items()}
    figure, axes = plt.subplots(
        len(groups), len(_COSTS), figsize=(15, 4.6 * len(groups)), squeeze=False, sharey="row", layout="constrained"
    )
    for row, (dataset, rows) in zip(axes, groups.items(), strict=True):
        for axis, (key, title, unit) in zip(row, _COSTS, strict=True):
            for entries in rows:
                name, style = entries[0]["network"], styles[entries[0]["network"]]
                cost = statistics.fmean(entry[key] for entry in entries) / unit
                scores = [_dice(entry) for entry in entries]
                axis.plot([cost] * 2, [min(scores), max(scores)], color=style["markeredgecolor"])
                axis.plot(cost, statistics.fmean(scores), **style)
                axis.annotate(
                    str(numbers[name]), (cost, statistics.fmean(scores)), ha="center", va="center_baseline",
                    fontsize=7, color="white" if style["markerfacecolor"] != "white" else style["markeredgecolor"],
                )  # fmt: skip
            axis.set_xscale("log")
            axis.margins(0.08)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel(title.format(**done["settings"]))
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{dataset}: Dice, mean of labels")
    handles = [plt.Line2D([], [], label=f"{numbers[name]}  {name}", **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _style(name: str, color: str) -> dict[str, Any]:
    return {
        "marker": "o",
        "markersize": 13,
        "linestyle": "",
        "markeredgecolor": color,
        "markerfacecolor": "white" if ENTRANTS[name].is_lighter else color,
    }


def _dice(entry: Entry) -> float:
    return statistics.fmean(score["dice"] for score in entry["labels"].values())
