"""Which moment of a training is kept: by Dice as far as the validation patients can tell, by the loss beyond that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

SPREAD = 0.02  # of mean Dice between patients (standard deviation), about


def as_good(patients: int) -> float:
    """Mean Dice that so many validation patients cannot tell from none: a standard error.

    With it the simplest of several models is chosen as in Breiman et al., "Classification and Regression Trees" (1984),
    3.4.3: a few patients must not decide alone how far a model leaves what many have taught it.
    """
    return SPREAD / max(1, patients) ** 0.5


def mean_of(dice: Mapping[str, float | None]) -> float | None:
    """Mean Dice over the labels that are judged; None when none is."""
    judged = [value for value in dice.values() if value is not None]
    return sum(judged) / len(judged) if judged else None


@dataclass
class Selection:
    """The weights that are kept.

    Pooled Dice of two validation patients is noise of two points; the loss on the same images, which sees how sure the
    network is at every voxel, is not. So Dice only rules out what is worse by more than a standard error.

    Attributes:
        patients: that validate. highest: mean Dice of any moment until now. dice, loss, weights: of the one that is
            kept; nothing has been kept while `weights` is empty.
    """

    patients: int
    highest: float = -1.0
    dice: float = -1.0
    loss: float = float("inf")
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offers(self, dice: Mapping[str, float | None], loss: float) -> bool:
        """Note a moment; whether it is to be kept, by `keep`. The last one is where no label is judged."""
        mean = mean_of(dice)
        if mean is None:
            self.dice, self.loss = 0.0, loss
            return True
        self.highest = max(self.highest, mean)
        enough = self.highest - as_good(self.patients)
        taken = mean >= enough and (self.dice < enough or loss <= self.loss)
        if taken:
            self.dice, self.loss = mean, loss
        return taken

    def keep(self, weights: dict[str, Tensor]) -> None:
        """These are the weights of the moment that was offered last."""
        self.weights = weights
