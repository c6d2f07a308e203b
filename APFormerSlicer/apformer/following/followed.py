"""What following gives: labels for all that the user has not touched, and what changed by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..bundles import Bundle
from ..volume import Volume


@dataclass
class Followed:
    """A new proposal.

    Attributes:
        labels: uint8 on the image's grid: what the user settled and structures the model does not know as they were,
            all else proposed anew; where nothing was gained, all as it was.
        uncertainty: entropy of the class probabilities in 0..1, 0 where the user has settled it; None where nothing was
            gained.
        certain: bool (k, j, i), what was settled: for the corrections of the next time.
        volumes_ml: by label name; added_ml, removed_ml: the same against the segmentation as it was. Empty for
            pictures, which have no size.
        share: of the way from the base to what was learned, more than 1 beyond it; 0: nothing was gained.
        wrong: of the corrected voxels that were left out for the guard, how many are wrong by share ("0": the base).
        corrections: what was followed, such as "2 corrected slices".
        steps, seconds: of learning; of all.
        device: what ran, in words.
        notes: what the user should know.
        weights: of the adapted network, for those who keep it; empty where nothing was gained.
    """

    labels: Volume
    uncertainty: Volume | None
    certain: np.ndarray
    volumes_ml: dict[str, float]
    added_ml: dict[str, float]
    removed_ml: dict[str, float]
    share: float
    wrong: dict[str, int]
    corrections: str
    steps: int
    seconds: float
    device: str
    notes: list[str] = field(default_factory=list)
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def gained(self) -> bool:
        """Whether there is a new proposal."""
        return self.share > 0

    @property
    def provenance(self) -> dict[str, str]:
        """For the header of the label map: {"followed": "2 corrected slices"}, where it is so."""
        return {"followed": self.corrections} if self.gained else {}


class Volumes(NamedTuple):
    """mL by label name."""

    present: dict[str, float]
    added: dict[str, float]
    removed: dict[str, float]


def volumes_ml(before: np.ndarray, after: np.ndarray, bundle: Bundle, grid: Volume) -> Volumes:
    """What `after` (k, j, i) has, what of it `before` had not, and what `before` had besides."""
    found = Volumes({}, {}, {})
    if grid.source.kind == "picture":
        return found
    for label in bundle.labels:
        old, new = before == label.value, after == label.value
        for into, where in zip(found, (new, new & ~old, old & ~new), strict=True):
            into[label.name] = float(np.count_nonzero(where)) * grid.voxel_volume_ml
    return found
