"""A fine-tuning while it runs: rows for curves, figures as they are measured, pictures, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apformer.bundles import Label

from .comparison import Comparison, compare, label_rows
from .curve_colors import Rgb, dice_curve, segment_color
from .runs import Run
from .signals import Signal


@dataclass(frozen=True)
class Trained:
    """What a finished fine-tuning left.

    Attributes:
        reference: the new version, NAME@VERSION. adopted: whether it became the active one when the training ended;
            verdict: why, in words. better: whether it is, by the rule; why: by what figures.
        report, page: the files that tell all.
    """

    reference: str
    adopted: bool
    verdict: str
    better: bool
    why: str
    comparison: Comparison
    warnings: tuple[str, ...]
    report: Path
    page: Path

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Trained:
        return Trained(
            f"{data['name']}@{data['version']}",
            bool(data["adopted"]),
            str(data["verdict"]),
            bool(data.get("better", data["adopted"])),  # absent in what an earlier version wrote
            str(data.get("why", data["verdict"])),
            compare(data),
            tuple(data.get("warnings", ())),
            Path(data["report"]),
            Path(data["page"]),
        )


class Training:
    """One fine-tuning.

    Attributes:
        run: its job: progress, lines, the end, and as its outcome `Trained`.
        labels: those that it may learn, which tell the colours of curves.
        rows: the "epoch" events, one per epoch, in their order.
        measured: "before" and "after" -> label -> (mean Dice, HD95, its unit), as soon as they are known.
        overlays: the newest pictures of validation cases, PNG files.
        changed: after everything that is new.
    """

    def __init__(self, run: Run, name: str, labels: Sequence[Label] = ()) -> None:
        self.run, self.name, self.labels = run, name, tuple(labels)
        self.rows: list[dict[str, Any]] = []
        self.measured: dict[str, dict[str, tuple[float | None, float | None, str]]] = {}
        self.overlays: list[Path] = []
        self.changed: Signal[Training] = Signal()
        run.metrics.connect(self._learn)
        run.changed.connect(lambda _: self.changed.emit(self))

    @property
    def trained(self) -> Trained | None:
        """What came of it; None before its end, or when it failed or was cancelled."""
        return self.run.outcome

    @property
    def step(self) -> str:
        """ "fold 2 of 3, prune, step 310": where it is; empty before the first stretch is over."""
        if not self.rows:
            return ""
        row = self.rows[-1]
        fold = f"fold {row.get('fold')} of {row.get('folds')}, " if (row.get("folds") or 1) > 1 else ""
        return f"{fold}{row.get('phase', '')}, step {row.get('step')}"

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Name -> (number of the row, value): the losses, "Dice of LABEL", "looked at closely"."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for number, row in enumerate(self.rows, 1):
            values = {f"loss: {name}": value for name, value in (row.get("losses") or {}).items()}
            values |= {dice_curve(name): value for name, value in (row.get("dice") or {}).items()}
            values["looked at closely"] = row.get("kept")
            for name, value in values.items():
                if isinstance(value, int | float):  # a value that is not finite comes as None
                    curves.setdefault(name, []).append((number, float(value)))
        return curves

    def colors(self, background: Rgb) -> dict[str, str]:
        """Name of a label's curve -> "#dd8265": the colour of its segments, as it can be seen on the background."""
        found = {name: segment_color(name, self.labels, background) for name in self.curves()}
        return {name: color for name, color in found.items() if color is not None}

    def _learn(self, event: dict[str, Any]) -> None:
        if event.get("event") == "epoch":
            self.rows.append(event)
            if event.get("overlays"):
                self.overlays = [Path(path) for path in event["overlays"]]
        elif event.get("event") == "measured":
            self.measured[str(event.get("which"))] = label_rows(event.get("labels") or {})
