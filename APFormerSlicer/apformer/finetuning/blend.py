"""How far to go from the base: weights on the straight line from what training began with to what it learned.

Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022, WiSE-FT): on the way back along that line, a
fine-tuned network regains what it has forgotten long before it loses what it has learned. The paper leaves the place to
the user; here it is the one nearest the base that is as good on the site's own validation cases, as far as these can
tell, so that no case of the base's is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ..training.selection import as_good

SHARES = (0.25, 0.5, 0.75)  # of the way, besides all of it


def choose_share(learned: float, dice_at: Callable[[float], float], patients: int) -> tuple[float, dict[str, float]]:
    """The smallest share of the way whose mean Dice is at most `as_good` below the best of all, and all Dice by share.

    Args:
        patients: who validate.
        learned: mean Dice at the end of the way, on the validation cases.
        dice_at: the same for another share; asked once for each.
    """
    found = {share: dice_at(share) for share in SHARES} | {1.0: learned}
    enough = max(found.values()) - as_good(patients)
    share = min(share for share, dice in found.items() if dice >= enough)
    return share, {f"{share:g}": round(dice, 5) for share, dice in found.items()}


def blended(
    start: Mapping[str, Tensor], learned: Mapping[str, Tensor], share: float, whole: Collection[str] = ()
) -> dict[str, Tensor]:
    """Weights that far on the way, running statistics of norms included.

    Args:
        start, learned: state dicts of the same network, on the CPU.
        share: 0 is the start, 1 what was learned.
        whole: names of tensors that stay as learned, such as gates: they decide by a threshold, and half of the way
            between two of them is neither.
    """
    return {
        name: torch.lerp(start[name].to(tensor.dtype), tensor, share)
        if tensor.is_floating_point() and name not in whole
        else tensor
        for name, tensor in learned.items()
    }
