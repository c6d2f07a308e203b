"""Before and after a fine-tuning, as a table; the report that it wrote says more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LabelRow:
    """One label. None: not measured, or not known to that model. Distances are HD95 in `unit`, "mm" or "px"."""

    label: str
    dice_before: float | None
    dice_after: float | None
    distance_before: float | None
    distance_after: float | None
    unit: str

    @property
    def gain(self) -> float | None:
        """Of Dice."""
        if self.dice_before is None or self.dice_after is None:
            return None
        return self.dice_after - self.dice_before


@dataclass(frozen=True)
class Comparison:
    """What a user decides by.

    Attributes:
        before, after: the models' titles; before is "" for one from scratch.
        costs: what is compared -> (before, after), such as "ms per case"; None where it was not measured.
        adopted: whether the new version is the active one since. verdict: why, in words.
    """

    before: str
    after: str
    rows: tuple[LabelRow, ...]
    costs: Mapping[str, tuple[float | None, float | None]]
    adopted: bool
    verdict: str


# Keys of the report's figures, and what they are called.
_COSTS = {"ms_per_case": "ms per case", "gmac": "GMAC", "kept_tokens_mean": "looked at closely"}


def compare(report: Mapping[str, Any]) -> Comparison:
    """From report.json, or the result of a `finetune` job, which is the same without curves."""
    before: Mapping[str, Any] = report.get("before") or {}
    after: Mapping[str, Any] = report.get("after") or {}
    old, new = label_rows(before.get("labels") or {}), label_rows(after.get("labels") or {})
    names = list(dict.fromkeys([*new, *old]))
    nothing = (None, None, "mm")
    rows = []
    for name in names:
        dice_before, distance_before, _ = old.get(name, nothing)
        dice_after, distance_after, unit = new.get(name, nothing)
        rows.append(LabelRow(name, dice_before, dice_after, distance_before, distance_after, unit))
    costs = {title: (_number(before.get(key)), _number(after.get(key))) for key, title in _COSTS.items()}
    verdict = str(report.get("verdict", ""))
    titles = [str(figures.get("model") or "") for figures in (before, after)]
    return Comparison(titles[0], titles[1], tuple(rows), costs, bool(report.get("adopted")), verdict)


def label_rows(labels: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None, str]]:
    """Label -> (mean Dice, HD95, its unit)."""
    found = {}
    for name, figures in labels.items():
        unit = "px" if "hd95_px" in figures else "mm"
        found[name] = _number(figures.get("mean_dice")), _number(figures.get(f"hd95_{unit}")), unit
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
