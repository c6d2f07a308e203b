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
    f"{LIGHTER:.0%} of the operations. A label that the old version does not know counts as 0 for it; one that no "
    "validation case has decides nothing. A version that finds nothing of what it is judged by never takes over."
)

Figures = Mapping[str, Any]


def judge(before: Figures | None, after: Figures) -> tuple[bool, str]:
    """(whether the new version is better by `RULE`, why, in words).

    Args:
        before, after: `measure.summary` of the old version (None when there is none) and of the new one.
    """
    new = _judged(after)
    unseen = [name for name in after["labels"] if name not in new]
    left_out = f" Not judged, as no validation case has it: {', '.join(unseen)}." if unseen else ""
    if not new:
        return False, f"No validation case has any label that it could be judged by.{left_out}"
    if finds_nothing(after):
        return False, f"It found nothing of {', '.join(new)} in any validation case.{left_out}"
    better, why = _compare(before, after, new)
    return better, why + left_out


def finds_nothing(after: Figures) -> bool:
    """Whether no voxel of any label that is judged was found right, in any validation case. False when none is
    judged."""
    judged = _judged(after)
    return bool(judged) and not any(after["labels"][name].get("pooled_dice", judged[name]) for name in judged)


def _judged(after: Figures) -> dict[str, float]:
    """Mean Dice of the labels that a validation case has."""
    return {name: entry["mean_dice"] for name, entry in after["labels"].items() if entry["mean_dice"] is not None}


def _compare(before: Figures | None, after: Figures, new: Mapping[str, float]) -> tuple[bool, str]:
    mean = _mean(new)
    if before is None:
        return True, f"There is no earlier version to compare with. Its mean Dice is {mean:.3f}."
    if before.get("cases") == {}:
        return (
            False,
            f"The earlier version could not be measured on these cases, so nothing tells whether {mean:.3f} is better.",
        )
    old = {name: (before["labels"].get(name) or {}).get("mean_dice") for name in new}
    gain = mean - _mean({name: value or 0.0 for name, value in old.items()})
    falls = {name: value - new[name] for name, value in old.items() if value is not None}
    worst = max(falls, key=lambda name: falls[name], default=None)
    if worst is None:
        return (
            gain >= BETTER,
            f"The earlier version knows none of these labels. Mean Dice of the new one is {mean:.3f}.",
        )
    change = f"Mean Dice went from {mean - gain:.3f} to {mean:.3f}"
    if falls[worst] > WORST_LOSS:
        return False, f"{change}, but {worst} fell from {old[worst]:.3f} to {new[worst]:.3f}."
    if gain >= BETTER:
        return True, f"{change}."
    share = after["gmac"] / before["gmac"] if before.get("gmac") else 1.0
    if gain >= -AS_GOOD and share <= LIGHTER:
        return True, f"{change}, with {share:.0%} of the operations."
    return False, f"{change}: that is no clear gain."


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else 0.0
