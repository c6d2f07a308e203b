"""How unsure a model was of a whole case, as one number: the case that teaches most is corrected first."""

from __future__ import annotations

import numpy as np

from .places import LEVELS

UNSURE_FROM = LEVELS[0]  # entropy from which a voxel is a place to check


def case_doubt(labels: np.ndarray, uncertainty: np.ndarray) -> float:
    """Of all voxels that are segmented or uncertain, the share that is uncertain: 0 (sure of everything) to 1.

    That is uncertainty sampling (B. Settles, "Active Learning Literature Survey", 2009, section 3.1, with entropy as
    the measure), brought to one number per case by the size of what was found, so that large organs, whose outlines
    are longer, do not come first. Where nothing was found it is 1: a model is run where its organ is expected, and on
    such slices the network is mostly sure, and wrong.

    Chosen by measurement among mean entropy, sums of entropy per segmented voxel and per voxel of its surface, and
    1 - expected Dice; `Testing/bench/measure_doubt.py` tells how it orders labelled cases. It tells doubt between what
    the model knows, and nothing of what it never saw.

    Args:
        labels: 0 is background, (k, j, i).
        uncertainty: entropy of the class probabilities, 0 to 1, of the same shape.
    """
    either = uncertain = segmented = 0
    for found, entropy in zip(labels, uncertainty, strict=True):  # slice by slice: no copies of a whole volume
        unsure, inside = entropy >= UNSURE_FROM, found != 0
        uncertain += int(np.count_nonzero(unsure))
        segmented += int(np.count_nonzero(inside))
        either += int(np.count_nonzero(unsure | inside))
    return uncertain / either if segmented else 1.0
