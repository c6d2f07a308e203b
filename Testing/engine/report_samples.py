"""A fine-tuning report with realistic figures, and a reader of the page made of it."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import numpy as np

Report = dict[str, Any]
VOID = {"meta", "link", "br", "img", "hr", "input"}
LABELS = {
    "Liver": (221, 130, 101),
    "Spleen": (157, 108, 162),
    "Left kidney": (185, 102, 83),
    "Right kidney": (185, 102, 83),
}
CASES = [f"case-{number:03d}" for number in (4, 11, 17, 23, 31, 38)]


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes and text; fails on tags left open."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
            if {"th", "td"} & set(self.open):
                self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, first: str) -> list[str]:
        """The cells of the first table row whose header begins so."""
        return next(row for row in self.rows if row and row[0].startswith(first))


def _scores(seed: int, dice: float, names: tuple[str, ...]) -> dict[str, Any]:
    """Figures of a model as `apformer.finetuning` writes them, from random agreement per case and label."""
    random = np.random.default_rng(seed)
    cases = {
        case: {
            name: {
                "dice": round(float(value), 4),
                "hd95_mm": round(40 * (1 - value), 2),
                "assd_mm": round(9 * (1 - value), 2),
            }
            for name, value in zip(names, np.clip(random.normal(dice, 0.04, len(names)), 0, 0.99), strict=True)
        }
        for case in CASES
    }

    def mean(name: str, key: str) -> float:
        return round(float(np.mean([entries[name][key] for entries in cases.values()])), 4)

    labels = {
        name: {
            "mean_dice": mean(name, "dice"),
            "pooled_dice": round(mean(name, "dice") + 0.006, 4),
            "hd95_mm": mean(name, "hd95_mm"),
            "assd_mm": mean(name, "assd_mm"),
        }
        for name in names
    }
    return {"labels": labels, "cases": cases}


def _log(folds: int, epochs: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(7)
    rows = []
    for fold in range(1, folds + 1):
        for epoch in range(1, epochs + 1):
            phase = "adapt" if 4 * (epoch - 1) < epochs else "prune"
            fall = math.exp(-epoch / 9) + 0.02 * random.random()
            row = {
                "epoch": epoch, "step": 20 * epoch, "phase": phase, "fold": fold, "seconds": 31.2,
                "loss_segmentation": 0.12 + fall,
                "loss_rehearsal": 0.03 + 0.2 * fall, "loss_prune_head": 0.08 * fall,
                "learning_rate": 3e-4 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)),
            }  # fmt: skip
            row["loss_total"] = row["loss_segmentation"] + row["loss_rehearsal"] + row["loss_prune_head"]
            if epoch % 3 == 0:
                row["dice"] = {name: 0.94 - 0.03 * place - 0.3 * fall for place, name in enumerate(LABELS)}
            if phase != "adapt":
                row["kept"] = 0.3 + 0.7 * math.exp(-(epoch - 6) / 3)
            rows.append(row)
    return rows


def a_report(folds: int = 1, adopted: bool = True, epochs: int = 0) -> Report:
    """A liver model that a site taught the spleen, with pruning; as report.json holds it.

    Drawing the curves takes longer than all the rest, so that only tests that look at them have epochs.
    """
    names = tuple(LABELS)
    known = tuple(name for name in names if name != "Spleen")
    before = {
        "model": "liver-ct 1.1.0", **_scores(1, 0.87, known), "ms_per_case": 2310.4, "gmac": 118.2, "gmac_dense": 118.2,
        "parameters": 4_812_340, "kept_tokens_mean": None, "foreground_inside": None,
    }  # fmt: skip
    before["labels"]["Spleen"] = {"mean_dice": None, "pooled_dice": None}
    after = {
        "model": "liver-ct 1.2.0", **_scores(2, 0.93, names), "ms_per_case": 1204.9, "gmac": 61.35, "gmac_dense": 118.4,
        "parameters": 4_812_598, "kept_tokens_mean": 0.31, "foreground_inside": 0.99996,
    }  # fmt: skip
    after["cases"]["case-017"]["Left kidney"] = {"dice": 0.0, "hd95_mm": None, "assd_mm": None}
    return {
        "schema": 1,
        "name": "liver-ct",
        "version": "1.2.0",
        "base": {"name": "liver-ct", "version": "1.1.0"},
        "adopted": adopted,
        "rule": "The new version takes over when its mean Dice on the validation cases is at least 0.002 higher and no "
        "label falls by more than 0.02. A label that the old version does not know counts as 0 for it.",
        "verdict": "Mean Dice went from 0.871 to 0.928, with 52% of the operations.",
        "date": "2026-03-14T16:20:05+01:00",
        "machine": "AMD Ryzen 7 PRO 5850U, 8 of 16 CPU cores, torch 2.13.0",
        "device": "cpu",
        "threads": 8,
        "seed": 5000,
        "time": {
            "asked_s": 900.0,
            "used_s": 874.2,
            "phases": [
                {"name": "preparing the cases", "seconds": 21.4},
                {"name": "measuring the base", "seconds": 44.0},
                {"name": "training", "seconds": 752.9},
                {"name": "measuring the result", "seconds": 55.9},
            ],
        },
        "data": {
            "training_patients": 21,
            "validation_patients": 5,
            "training_cases": [f"case-{number:03d}" for number in range(1, 38) if f"case-{number:03d}" not in CASES],
            "validation_cases": CASES,
            "measured_cases": CASES,
            "folds": folds,
            "skipped": [{"case": "case-040", "reason": "The labels have another grid than the image."}],
        },
        "labels": [
            {"name": "Liver", "color": [221, 130, 101], "how": "kept", "trained": True},
            {"name": "Spleen", "color": [157, 108, 162], "how": "new", "trained": True},
            {"name": "Left kidney", "color": [185, 102, 83], "how": "same as base's Kidney, left", "trained": True},
            {"name": "Right kidney", "color": [185, 102, 83], "how": "same as base's Kidney, right", "trained": True},
        ],
        "settings": {"recipe": {"learning_rate": 3e-4, "batch_size": 2}, "mapping": {"Leber": "Liver"}},
        "curves": _log(folds, epochs),
        "blend": {"share": 0.5, "dice": {"1": 0.931, "0.25": 0.902, "0.5": 0.9296, "0.75": 0.93}},
        "before": before,
        "after": after,
        "pictures": {
            "worst": [{"case": "case-017", "file": "worst-1.png", "dice_before": 0.861, "dice_after": 0.694}],
            "overlays": [f"overlays/epoch-{epoch:03d}.png" for epoch in range(1, 25)],
        },
        "warnings": ["Only 5 patients were measured: a difference of a few hundredths of Dice may be chance."],
    }  # fmt: skip
