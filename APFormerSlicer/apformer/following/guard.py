"""Whether what was learned helps: what is learned from some corrections is judged on those that were left out.

With several corrections each is left out once (or a third of them); one that is nearly all there is is halved. What is
found so for several places between the base and what was learned (as `finetuning.blend` goes) tells how far to go. The
learnings are not thrown away: all begin with the same weights, and the average of what they end with has seen all
corrections and errs less than any of them (Wortsman et al., "Model soups", ICML 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..finetuning.blend import blended
from .examples import Examples

MOST_FOLDS = 3
MOSTLY = 0.7  # of all corrected voxels; a correction that has more of them is halved
# Of the way from the base: a good proposal needs less than was learned, a bad one more than the seconds allowed.
SHARES = (0.25, 0.5, 1.0, 1.5, 2.0)
MOST_FORGOTTEN = 0.3  # of what the base is sure of elsewhere: beyond it, structures vanish there or spread
LEAST_GAIN = 0.1  # of the wrong voxels must become right
AS_GOOD = 0.05  # of the wrong voxels: within it a smaller share is as good


def folds(known: Examples) -> list[Tensor]:
    """Bool masks (N, 1, *size) of corrected voxels to leave out, one mask for each learning; no voxel is in two. None
    where what was corrected cannot be parted: a single voxel, or nothing that the network sees."""
    numbers, voxels = torch.unique(known.groups[(known.groups > 0) & (known.weights > 0)], return_counts=True)
    if voxels.sum() < 2:
        return []
    if voxels.max() > MOSTLY * voxels.sum():  # what is learned from a few strokes does not judge a whole slice
        largest = int(voxels.argmax())
        held = _halves(known, numbers[largest])
        rest = [number for place, number in enumerate(numbers) if place != largest]
    else:
        held = [torch.zeros_like(known.groups, dtype=torch.bool) for _ in range(min(len(numbers), MOST_FOLDS))]
        rest = list(numbers)
    for place, number in enumerate(rest):
        held[place % len(held)] |= known.groups == number
    return held if len(held) > 1 else []


def _halves(known: Examples, number: Tensor) -> list[Tensor]:
    """A correction, cut through the middle of its structures where they are longest."""
    settled = known.groups == number
    inside = settled & (known.classes > 0)
    places = torch.nonzero(inside if inside.any() else settled)[:, 2:]  # along the axes of the size
    extent = places.amax(0) - places.amin(0)
    axis = int(extent.argmax())
    middle = places[:, axis].median()
    shape = [1] * settled.ndim
    shape[2 + axis] = -1
    first = (torch.arange(settled.shape[2 + axis]) <= middle).reshape(shape)
    return [part for part in (settled & first, settled & ~first) if part.any()]


@dataclass
class Evidence:
    """Wrong voxels among those that were left out, by share of the way; 0 is the base."""

    wrong: dict[float, int] = field(default_factory=lambda: dict.fromkeys((0.0, *SHARES), 0))

    def add(
        self,
        network: nn.Module,
        base: Mapping[str, Tensor],
        learned: Mapping[str, Tensor],
        known: Examples,
        held: Tensor,
    ) -> None:
        """Count for one learning; `network` has other weights afterwards."""
        for share in self.wrong:
            network.load_state_dict(blended(base, learned, share))
            self.wrong[share] += _wrong(network, known, held)

    def share(self) -> float:
        """How far to go; 0: nothing is gained."""
        best = min(self.wrong.values())
        if best > (1 - LEAST_GAIN) * self.wrong[0.0] or best == self.wrong[0.0]:
            return 0.0
        enough = best + AS_GOOD * self.wrong[0.0]
        return min(share for share, wrong in self.wrong.items() if wrong <= enough)

    def shares(self) -> list[float]:
        """How far to go, best first: should a place not do on the other slices, a nearer one may."""
        furthest = self.share()
        return sorted((share for share in self.wrong if 0 < share <= furthest), reverse=True)


@torch.inference_mode()
def forgotten(network: nn.Module, known: Examples) -> float:
    """How much of what the base is sure of, where nobody has corrected it, `network` calls something else: as a share
    of the structures there; 0 where there is no such place."""
    device = next(network.parameters()).device
    sure = known.weights * (known.groups == 0)
    changed = present = 0.0
    for item in torch.nonzero(sure.flatten(1).any(1)).flatten().tolist():
        said = network(known.images[item : item + 1].to(device)).argmax(1, keepdim=True).cpu()
        classes, weights = known.classes[item : item + 1], sure[item : item + 1]
        changed += float((weights * (said != classes)).sum())
        present += float((weights * (classes > 0)).sum())
    return changed / max(present, 1.0)


@torch.inference_mode()
def _wrong(network: nn.Module, known: Examples, held: Tensor) -> int:
    """How many of the voxels `held` the network calls something else."""
    device = next(network.parameters()).device
    count = 0
    for item in torch.nonzero(held.flatten(1).any(1)).flatten().tolist():
        said = network(known.images[item : item + 1].to(device)).argmax(1, keepdim=True).cpu()
        count += int(((said != known.classes[item : item + 1]) & held[item : item + 1]).sum())
    return count
