"""The results of `apformer benchmark systems` as Markdown and as a plot of accuracy against cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]


def render(done: Mapping[str, Any]) -> str:
    """One table per data set; figures are means over seeds."""
    settings = done["settings"]
    lines: list[str] = []
    for dataset, rows in _grouped(done).items():
        first = rows[0][0]
        labels = list(first["labels"])
        size = " x ".join(map(str, settings["size"]))
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
    """Mean Dice over labels against GMAC, parameters and time, one row of axes per data set, a point per entry."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = _grouped(done)
    costs = (
        ("gmac", "GMAC, attention included"),
        ("parameters", "parameters"),
        ("cpu_ratio", "time, x the baseline's"),
    )
    figure, axes = plt.subplots(len(groups), 3, figsize=(14, 4 * len(groups)), squeeze=False, sharey="row")
    for row, (dataset, networks) in zip(axes, groups.items(), strict=True):
        systems = list(dict.fromkeys(entries[0]["system"] for entries in networks))
        for axis, (key, name) in zip(row, costs, strict=True):
            for entries in networks:
                color = f"C{systems.index(entries[0]['system'])}"
                points = [(entry[key], _dice(entry)) for entry in entries]
                axis.plot(*zip(*points, strict=True), "o", color=color)
                axis.annotate(entries[0]["network"], points[0], fontsize=7, xytext=(3, 3), textcoords="offset points")
            axis.set_xscale("log")
            axis.set_xlabel(name)
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{dataset}: Dice, mean of labels")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _dice(entry: Entry) -> float:
    return statistics.fmean(score["dice"] for score in entry["labels"].values())
