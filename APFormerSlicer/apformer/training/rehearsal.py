"""Rehearsal: while a network learns new cases, what its base says of the same images keeps old skills alive.

Distillation without forgetting (Li and Hoiem, "Learning without Forgetting", TPAMI 2018), with the background of the
base understood as "background, or one of the new structures" (Cermelli et al., "Modeling the Background for Incremental
Learning in Semantic Segmentation", CVPR 2020, eq. 8). Only voxels where the base agrees with the labels are rehearsed:
where a person has corrected it, the base is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from .cases import UNKNOWN
from .marginal import is_missing

REHEARSAL_WEIGHT = 0.5  # of the segmentation loss


class Rehearsal:
    """The base as a teacher.

    Args:
        base: the trained network; it is only asked, never changed.
        channels: channel of the base -> channel of the student, background (0 -> 0) left out. Channels of the base
            that have no student's are dropped labels; they count as background.
        unlabelled: channels of the student that no training case labels. Where the base finds them on what the cases
            call background, they are taken for true: nobody has said that they are not there.
        weight: of the distillation, relative to the segmentation loss.
    """

    def __init__(
        self,
        base: nn.Module,
        channels: Mapping[int, int],
        unlabelled: Collection[int] = (),
        weight: float = REHEARSAL_WEIGHT,
    ) -> None:
        self.base = base.eval().requires_grad_(False)
        self.channels = {0: 0, **channels}
        self.unlabelled = sorted(unlabelled)
        self.weight = weight

    @torch.no_grad()
    def ask(self, image: Tensor) -> Tensor:
        """What the base says of `image` (B, C, *size): probabilities (B, kept channels, *size), as in `channels`."""
        said = self.base(image).float().softmax(1)
        kept = [said[:, channel] for channel in self.channels]
        dropped = [said[:, channel] for channel in range(said.shape[1]) if channel not in self.channels]
        kept[0] = kept[0] + torch.stack(dropped).sum(0) if dropped else kept[0]
        return torch.stack(kept, dim=1)

    def complete(self, labels: Tensor, said: Tensor, missing: Tensor | None = None) -> Tensor:
        """`labels` (B, 1, *size) with the structures that nobody labelled where the base finds them: in no case, or
        not in the item's (`missing`, see `marginal`)."""
        if not self.unlabelled and missing is None:
            return labels
        found = self._student_channels(said.device)[said.argmax(1, keepdim=True)]
        unlabelled = torch.isin(found, torch.tensor(self.unlabelled, device=labels.device))
        if missing is not None:
            unlabelled = unlabelled | is_missing(found, missing)
        return torch.where((labels == 0) & unlabelled, found.to(labels.dtype), labels)

    def loss(self, logits: Tensor, said: Tensor, labels: Tensor, marks: Tensor | None = None) -> Tensor:
        """Cross-entropy between base and student, over the voxels where the base is right, or nobody knows.

        Args:
            logits: the student's, (B, channels, *size). said: from `ask`. labels: (B, 1, *size), completed, and their
                `marks`.
        """
        log = logits.float().log_softmax(1)
        places = list(self.channels.values())
        rest = [channel for channel in range(log.shape[1]) if channel not in places[1:]]
        parts = [torch.logsumexp(log[:, rest], 1), *(log[:, place] for place in places[1:])]
        per_voxel = -(said * torch.stack(parts, dim=1)).sum(1, keepdim=True)  # (B, 1, *size)
        old = torch.where(torch.isin(labels, torch.tensor(places, device=labels.device)), labels, 0)
        right = self._student_channels(said.device)[said.argmax(1, keepdim=True)] == old
        if marks is not None:
            right = right | (marks == UNKNOWN)
        return (per_voxel * right).sum() / right.sum().clamp_min(1)

    def _student_channels(self, device: torch.device) -> Tensor:
        return torch.tensor(list(self.channels.values()), device=device)
