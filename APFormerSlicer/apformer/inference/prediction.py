"""What running a network over a volume gives, before clean-up, on the stored voxels with the model's axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Wanted:
    """Which maps are asked for besides the labels; a map that is not costs no memory."""

    uncertainty: bool = False
    kept_tokens: bool = False


@dataclass
class Prediction:
    """Filled slice by slice, or as a whole.

    Attributes:
        labels: uint8 label values (k, j, i).
        uncertainty: float32 in 0..1, on request.
        looked: uint8, 1 in the cells of kept tokens, on request.
        pruned: bool (k,), slices that, wholly or in part, were not yet run without pruning. Before a run: all.
        dense_tiles: network calls without pruning, one per slice or window.
    """

    labels: np.ndarray
    uncertainty: np.ndarray | None
    looked: np.ndarray | None
    pruned: np.ndarray
    dense_tiles: int = 0

    @staticmethod
    def blank(shape: Sequence[int], wanted: Wanted) -> Prediction:
        """Nothing found on a grid of `shape`, nothing run."""
        return Prediction(
            labels=np.zeros(shape, np.uint8),
            uncertainty=np.zeros(shape, np.float32) if wanted.uncertainty else None,
            looked=np.zeros(shape, np.uint8) if wanted.kept_tokens else None,
            pruned=np.ones(shape[0], bool),
        )

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> Prediction:
        """The same with `change` made to the labels and to every map."""
        uncertainty = None if self.uncertainty is None else change(self.uncertainty)
        looked = None if self.looked is None else change(self.looked)
        return replace(self, labels=change(self.labels), uncertainty=uncertainty, looked=looked)
