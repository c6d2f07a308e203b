"""Whether a new version takes over: one rule, stated in every report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BETTER = 0.002  # mean Dice; smaller changes are within what a second training of the same cases gives
WORST_LOSS = 0.02  # Dice of any one label that both know
AS_GOOD = 0.005  # mean Dice that may be given up for a model that is clearly lighter
LIGHTER = 0.9  # of the operations

RULE = (
    f"The new version takes over when its mean Dice on the validation cases is at least {BETTER} higher and no label "
    f"falls by more than {WORST_LOSS}; or when it falls by no more than {AS_GOOD} and the new version needs at most "
    f"{LIGHTER:.0%} of the operations. A label that the old version does not know counts as 0 for it."
)

Figures = Mapping[str, Any]


def judge(before: Figures | None, after: Figures) -> tuple[bool, str]:
    """(whether the new version is better by `RULE`, why, in words).

    Args:
        before, after: `Measured.as_data` of the old version (None when there is none) and of the new one.
    """
    new = {name: entry["mean_dice"] or 0.0 for name, entry in after["labels"].items()}
    mean = _mean(new)
    if before is None:
        return mean > 0, f"There is no earlier version to compare with. Its mean Dice is {mean:.3f}."
    old = {name: (before["labels"].get(name) or {}).get("mean_dice") for name in new}
    gain = mean - _mean({name: value or 0.0 for name, value in old.items()})
    falls = {name: value - new[name] for name, value in old.items() if value is not None}
    worst = max(falls, key=lambda name: falls[name], default=None)
    change = f"Mean Dice went from {mean - gain:.3f} to {mean:.3f}"
    if worst is not None and falls[worst] > WORST_LOSS:
        return False, f"{change}, but {worst} fell from {old[worst]:.3f} to {new[worst]:.3f}."
    if gain >= BETTER:
        return True, f"{change}."
    share = after["gmac"] / before["gmac"] if before.get("gmac") else 1.0
    if gain >= -AS_GOOD and share <= LIGHTER:
        return True, f"{change}, with {share:.0%} of the operations."
    return False, f"{change}: that is no clear gain."


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else 0.0
