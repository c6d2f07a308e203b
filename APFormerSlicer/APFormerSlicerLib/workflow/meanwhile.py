"""What was drawn while a job was at work: it stays, and the job's result is put around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from apformer.errors import InputError
from apformer.part import Part


@dataclass(frozen=True, eq=False)
class Meanwhile:
    """One label map, cut to what is not 0: as it is `now`, and `after` the result was put around what was drawn."""

    now: Part
    after: Part

    @staticmethod
    def of(name: str, now: np.ndarray, before: np.ndarray, result: np.ndarray, learned_from: np.ndarray) -> Meanwhile:
        """
        Args:
            now, before, result: label maps (k, j, i): as drawn, as handed over, and what came of it.
            learned_from: bool (k, j, i), what the result goes by.

        Raises:
            InputError: what it goes by is another now.
        """
        drawn = now != before
        if (drawn & learned_from).any():
            raise changed(name)
        return Meanwhile(Part.of(now), Part.of(np.where(drawn, now, result).astype(np.uint8)))


def changed(name: str) -> InputError:
    return InputError(
        f"{name} was changed while the network learned.",
        "The new proposal goes by what was there before, and was not used; nothing was changed.",
        "Apply again: it learns from what was drawn meanwhile too.",
    )
