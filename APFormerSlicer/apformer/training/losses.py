"""The losses APFormer is trained with (Lin et al., IEEE TMI 2023, sections III-B to III-D)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.parts import crop_to
from ..pruning.auxiliaries import Auxiliaries, Coarser
from .cases import CORRECTED, UNKNOWN
from .config import LossWeights
from .marginal import dice_and_entropy, with_own_answer

if find_spec("monai") is None:  # told at once, and not when a training begins
    raise ModuleNotFoundError("No module named 'monai'", name="monai")

ENTROPY_BOUND = 0.9  # released code: relative entropy above which attention counts as too even
ENTROPY_STEEPNESS = 10.0
SYMMETRY_FLOOR = 0.1  # released code: below it the symmetry term gives no gradient
SMALLEST_ATTENTION = SMALLEST = 1e-30
SYMMETRY_WEIGHT, ENTROPY_WEIGHT = 0.8, 0.2
COARSER_WEIGHT = 0.5  # as nnU-Net: of an output beside that of the next finer one
SEARCH = 0.6  # of a training, in which structures are searched for: until then `balanced_entropy` fades away
CORRECTED_WEIGHT = 3.0  # a person looked at these voxels and found the model wrong


def content_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention (B, heads, N, N) from content alone, without positional bias or pruning."""
    scores = queries.float() @ keys.float().transpose(-1, -2) / queries.shape[-1] ** 0.5
    return scores.softmax(-1)


def ssa_term(attention: Tensor) -> Tensor:
    """Self-supervised attention term of one layer: 0.8 symmetry + 0.2 entropy.

    Symmetry pulls A and its transpose together (tokens that matter to each other do so mutually); entropy punishes a
    layer whose most focused query still attends almost evenly.

    Args:
        attention: content attention (B, heads, N, N), rows sum to 1.
    """
    count = attention.shape[-1]
    # Clamped inside the logarithm: sharp attention underflows to 0, where the slope of x log x is infinite and one such
    # weight would turn every gradient into NaN.
    logarithm = attention.clamp_min(SMALLEST_ATTENTION).log()
    entropy = -(attention * logarithm).sum(-1) / math.log(max(count, 2))  # (B, heads, N), 0..1
    evenness = (entropy.amin(-1) - ENTROPY_BOUND).clamp_min(0).mean() * ENTROPY_STEEPNESS
    scaled = attention * count
    asymmetry = F.smooth_l1_loss(scaled, scaled.transpose(-1, -2)).clamp_min(SYMMETRY_FLOOR)
    return SYMMETRY_WEIGHT * asymmetry + ENTROPY_WEIGHT * evenness


def cells_with_foreground(labels: Tensor, stride: Sequence[int]) -> Tensor:
    """Labels (B, 1, *size) -> 1 where the cell (of `stride` voxels) holds any foreground, else 0: (B, 1, *grid)."""
    padding: list[int] = []
    for size, step in zip(reversed(labels.shape[2:]), reversed(stride), strict=True):
        padding += [0, -size % step]
    pool = F.max_pool2d if labels.ndim == 4 else F.max_pool3d
    return pool(F.pad((labels > 0).float(), padding), tuple(stride))


def balanced_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy over the structures of a batch, each counting by what of it is not found, however small it is.

    A structure that fills a ten-thousandth of the field has as much of the usual cross-entropy, and Dice has no slope
    where a network is sure that it is nowhere: once lost, it is not found again in the minutes that there are. Here
    such certainty costs most, and what is found costs little. Background is left to the other terms.

    Args:
        logits: (B, classes, *size). labels, weights: (B, 1, *size), of voxels.
    """
    inside = labels[:, 0] > 0
    said, truth, weight = logits.movedim(1, -1)[inside], labels[:, 0][inside], weights[:, 0][inside]
    log = said.log_softmax(1).gather(1, truth[:, None])[:, 0]  # of voxels, those of all structures in a row

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(logits.shape[1]).index_add(0, truth, values * weight) / sizes.clamp_min(SMALLEST)

    sizes = weight.new_zeros(logits.shape[1]).index_add(0, truth, weight)
    missed = 1 - mean(log.detach().exp())
    return -(missed * mean(log)).sum() / (sizes > 0).sum().clamp_min(1)


def thinned(labels: Tensor, step: Sequence[int]) -> Tensor:
    """Labels (B, 1, *size), of every cell of `step` voxels the one in its middle."""
    for axis, every in enumerate(step, start=2):
        first = min(every // 2, labels.shape[axis] - 1)
        places = torch.arange(first, labels.shape[axis], every, device=labels.device)
        labels = labels.index_select(axis, places)
    return labels


class APFormerLoss(nn.Module):
    """Weighted sum of segmentation, SSA and prune-head losses.

    The SSA term is evaluated on one layer per call, taken in turn: the mean over layers, as published, in expectation,
    for a quarter of the attention maps.
    """

    def __init__(self, weights: LossWeights) -> None:
        super().__init__()
        from monai.losses import DiceCELoss  # takes longer than torch: what is refused before does not wait for it

        self.weights = weights
        self.dice_ce = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)

    def forward(
        self,
        logits: Tensor,
        auxiliaries: Auxiliaries,
        labels: Tensor,
        ssa_layer: int | None,
        marks: Tensor | None = None,
        missing: Tensor | None = None,
        share: float = 1.0,
    ) -> dict[str, Tensor]:
        """Losses by name, "total" among them.

        Args:
            logits: (B, classes, *size); labels: (B, 1, *size) integers.
            ssa_layer: layer whose attention is regularised in this call, modulo their number; None leaves SSA out.
            marks: (B, 1, *size), see `cases`: voxels that a person corrected count `CORRECTED_WEIGHT` times in the
                cross-entropy, those that nobody knows not at all.
            missing: (B, 256) bool, structures that were not outlined in each item, see `marginal`.
            share: of the training, that is over; `LossWeights.balanced` fades with it.
        """
        search = self.weights.balanced * max(0.0, 1 - share / SEARCH)
        parts = {"segmentation": self._supervised(logits, auxiliaries.coarser, labels, marks, missing, search)}
        total = self.weights.segmentation * parts["segmentation"]
        if ssa_layer is not None and auxiliaries.queries_keys:
            parts["ssa"] = ssa_term(
                content_attention(*auxiliaries.queries_keys[ssa_layer % len(auxiliaries.queries_keys)])
            )
            total = total + self.weights.ssa * parts["ssa"]
        if auxiliaries.prune_logits is not None:
            found = with_own_answer(labels, logits, marks, missing)
            cells = cells_with_foreground(found, auxiliaries.token_stride)
            parts["prune_head"] = self.dice_ce(auxiliaries.prune_logits.float(), cells)
            total = total + self.weights.prune_head * parts["prune_head"]
        return {**parts, "total": total}

    def _supervised(
        self,
        logits: Tensor,
        coarser: Sequence[Coarser],
        labels: Tensor,
        marks: Tensor | None,
        missing: Tensor | None,
        search: float,
    ) -> Tensor:
        """Mean over the outputs, each coarser one with half the weight of the one before (deep supervision)."""
        loss, weights = self._segmentation(logits.float(), labels, marks, missing, search), 1.0
        for number, output in enumerate(coarser, start=1):
            less, fewer = thinned(labels, output.step), None if marks is None else thinned(marks, output.step)
            said = crop_to(output.logits.float(), less.shape[2:])
            weight = COARSER_WEIGHT**number
            loss = loss + weight * self._segmentation(said, less, fewer, missing, search)
            weights += weight
        return loss / weights

    def _segmentation(
        self, logits: Tensor, labels: Tensor, marks: Tensor | None, missing: Tensor | None, search: float = 0.0
    ) -> Tensor:
        weights = torch.ones_like(labels, dtype=logits.dtype)
        if marks is not None:
            weights = torch.where(marks == CORRECTED, CORRECTED_WEIGHT, weights).masked_fill(marks == UNKNOWN, 0.0)
        if marks is None and missing is None:
            loss: Tensor = self.dice_ce(logits, labels)
        else:
            loss = dice_and_entropy(logits, labels, weights, missing)
        return loss + search * balanced_entropy(logits, labels, weights) if search else loss
