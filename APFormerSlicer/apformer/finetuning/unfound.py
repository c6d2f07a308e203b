"""Structures that a training does not find: told while it runs, when there is time to give it more, and in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

FOUND = 0.05  # Dice: below it, a structure is not found but touched by chance
PATIENCE = 0.4  # of the training: small structures are found later than large ones


class Watch:
    """Tells, once each, which structures a training has not found yet, and when it finds them after all."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._missed: set[str] = set()

    def look(self, dice: Mapping[str, float | None], share: float) -> None:
        """After a validation at `share` of the training; None for a label that nothing judges."""
        for name in sorted(self._missed):
            if (dice.get(name) or 0.0) >= FOUND:
                self._missed.remove(name)
                self._say(f"{name} is found now (validation Dice {dice[name]:.2f}).")
        new = [name for name in unfound(dice) if name not in self._missed] if share >= PATIENCE else []
        if new:
            self._missed.update(new)
            are = "is" if len(new) == 1 else "are"
            self._say(
                f"{', '.join(new)} {are} not found yet, after {share:.0%} of the training (validation Dice below "
                f"{FOUND}). Small or rare structures take longest."
            )


def unfound(dice: Mapping[str, float | None]) -> list[str]:
    """The labels that are judged and not found."""
    return [name for name, value in dice.items() if value is not None and value < FOUND]


def warnings(dice: Mapping[str, float | None]) -> list[str]:
    """What a finished training says of what it has not found."""
    names = unfound(dice)
    if not names:
        return []
    are = "was" if len(names) == 1 else "were"
    return [
        f"{', '.join(names)} {are} not found (mean Dice below {FOUND}): the new model does not segment that. Give the "
        "training more time or more patients who have it, or start from a model that knows it."
    ]
