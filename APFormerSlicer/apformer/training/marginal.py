"""The loss where labels leave something open: structures that a case does not outline, voxels that nobody knows.

What was not outlined in a case is part of its background there: at a background voxel the network is right with the
background and with each of these structures, so their probabilities are added up (marginal loss; Shi et al., "Marginal
loss and exclusion loss for partially supervised multi-organ segmentation", Medical Image Analysis 70, 2021, section
3.1). Dice, which compares a structure with where it is, is taken over the cases that outline it. Where everything is
outlined and known, all of this is the usual Dice and cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cases import UNKNOWN

SMOOTH = 1e-5  # as MONAI's DiceLoss has it, above and below


def dice_and_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, missing: Tensor | None, judged: Tensor | None = None
) -> Tensor:
    """Dice over the foreground, plus cross-entropy.

    Args:
        logits: (B, classes, *size). labels: (B, 1, *size), 0 where nothing was outlined.
        weights: (B, 1, *size), of voxels in the cross-entropy; those of weight 0 take no part in Dice either.
        missing: (B, at least classes) bool, what was not outlined in each item.
        judged: (B, 1, *size) bool, the voxels that take part in Dice; without, those with a weight.
    """
    log = logits.log_softmax(1)
    known = weights > 0 if judged is None else judged
    target = torch.zeros_like(log).scatter_(1, labels, 1.0)
    mean = (marginal_entropy(log, labels, missing) * weights).sum() / weights.sum().clamp_min(1)
    return mean + _dice(log.exp() * known, target * known, missing)


def marginal_entropy(log: Tensor, labels: Tensor, missing: Tensor | None) -> Tensor:
    """Cross-entropy of each voxel, (B, 1, *size), from the logarithms of probabilities (B, classes, *size)."""
    chosen = log if missing is None else torch.cat([_background(log, missing), log[:, 1:]], dim=1)
    return -chosen.gather(1, labels)


def _background(log: Tensor, missing: Tensor) -> Tensor:
    """(B, 1, *size): the logarithm of the probability of background or anything that was not outlined."""
    hidden = _per_item(missing[:, : log.shape[1]], log).clone()
    hidden[:, 0] = True
    return log.masked_fill(~hidden, -torch.inf).logsumexp(1, keepdim=True)


def _dice(found: Tensor, target: Tensor, missing: Tensor | None) -> Tensor:
    """1 - Dice, over all items of the batch together that outline a structure; mean over those that any does."""
    axes = list(range(2, found.ndim))
    common, size = (found * target).sum(axes), (found + target).sum(axes)  # (B, classes)
    told = torch.ones_like(size) if missing is None else (~missing[:, : size.shape[1]]).to(size)
    loss = 1 - (2 * (common * told).sum(0) + SMOOTH) / ((size * told).sum(0) + SMOOTH)
    judged = (told.sum(0) > 0)[1:]
    return (loss[1:] * judged).sum() / judged.sum().clamp_min(1)


def with_own_answer(labels: Tensor, logits: Tensor, marks: Tensor | None, missing: Tensor | None) -> Tensor:
    """`labels` (B, 1, *size), where they leave something open as the network finds it at present.

    The prune head is taught by this: a token is not empty because nobody has outlined what is in it.
    """
    if marks is None and missing is None:
        return labels
    own = logits.detach().argmax(1, keepdim=True)
    unknown = torch.zeros_like(own, dtype=torch.bool) if marks is None else marks == UNKNOWN
    if missing is not None:
        unknown = unknown | ((labels == 0) & is_missing(own, missing))
    return torch.where(unknown, own, labels)


def is_missing(labels: Tensor, missing: Tensor) -> Tensor:
    """Where `labels` (B, 1, *size) name a structure that was not outlined in the item."""
    return missing.gather(1, labels.flatten(1)).reshape(labels.shape)


def _per_item(flags: Tensor, like: Tensor) -> Tensor:
    """(B, classes) as (B, classes, 1, ...), to be spread over the voxels of `like`."""
    return flags.reshape(*flags.shape, *[1] * (like.ndim - 2))
