"""Where pruning is not trusted: tiles, and at last whole volumes, are run again without it.

A pruned network does not look at cells in which its prune head sees no foreground; where the head errs, an organ is
lost that the dense network finds. Two rules prevent an empty result for this reason:

- A tile (a slice, or one window of it) of which no token was kept is run again if its head was unsure: if some token
  had a foreground probability of at least `SURELY_EMPTY_BELOW`. That no token was kept says that all of them were at
  or below the gate's threshold; where even one passes, its safety ring is kept too and the transformer has looked.
- A volume in which nothing was found, after clean-up, is run again once, save slices that were run densely already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from .kept import everywhere, expand_tokens
from .prediction import Prediction

# Greatest foreground probability of a tile's tokens from which an empty tile is in doubt: a tenth of the gates' first
# threshold, 0.1. Of 256 CT slices that show liver, the head of liver-ct 1.0.0 gives 4 less than 0.1 and none less than
# 0.0116; higher bounds hardly save time, since half of the slices far from the liver lie between 0.02 and 0.1 as well.
SURELY_EMPTY_BELOW = 0.01


class Gated(Protocol):
    """What is asked of a network whose `query_gate` is not None: APFormer, or any other that offers the same."""

    gating: str  # "hard" or "soft" prunes, "off" does not


def prunes(network: nn.Module) -> bool:
    """Whether `network` has a query gate, and it is not switched off."""
    return getattr(network, "query_gate", None) is not None and cast(Gated, network).gating != "off"


@contextmanager
def without_pruning(network: nn.Module) -> Iterator[None]:
    """Nothing is pruned inside the block; afterwards, whatever happens, `network` is gated as before."""
    gated = cast(Gated, network)
    before = gated.gating
    gated.gating = "off"
    try:
        yield
    finally:
        gated.gating = before


class Tile(NamedTuple):
    """One network call.

    logits: (B, classes, *size).
    kept: uint8 (B, *token grid) on the CPU, 1 where the transformer worked; None where nothing was pruned.
    token_stride: voxels per token along each axis; empty without `kept`.
    dense: bool (B,) on the CPU, images that were run without pruning.
    """

    logits: Tensor
    kept: Tensor | None
    token_stride: tuple[int, ...]
    dense: Tensor

    def looked(self) -> Tensor:
        """uint8 (B, *size), 1 in the cells of kept tokens."""
        size = self.logits.shape[2:]
        if self.kept is None:
            return everywhere(self.logits.shape[0], size)
        return expand_tokens(self.kept, self.token_stride, size)


def run_tile(network: nn.Module, images: Tensor) -> Tile:
    """Run `network` on images (B, C, *size), and again without pruning on those of which it is in doubt."""
    if not prunes(network):
        return Tile(network(images), None, (), torch.ones(images.shape[0], dtype=torch.bool))
    logits, auxiliaries = network(images, auxiliaries=True)
    kept = auxiliaries.kept.to("cpu", torch.uint8)
    dense = in_doubt(kept, auxiliaries.prune_logits)
    again = dense.nonzero().flatten()
    if again.numel():
        with without_pruning(network):
            logits[again.to(logits.device)] = network(images[again.to(images.device)])
        kept[again] = 1
    return Tile(logits, kept, tuple(auxiliaries.token_stride), dense)


def in_doubt(kept: Tensor, prune_logits: Tensor) -> Tensor:
    """Which images (B,) have no kept token (B, *grid) although their head (B, 2, *grid) is not sure; on the CPU."""
    foreground = torch.softmax(prune_logits.float(), dim=1)[:, 1].flatten(1).amax(1).cpu()
    return (kept.flatten(1).amax(1) == 0) & (foreground >= SURELY_EMPTY_BELOW)


def predict_insistently(
    network: nn.Module, predict: Callable[[Prediction | None], Prediction], clean: Callable[[np.ndarray], object]
) -> tuple[Prediction, bool]:
    """A cleaned prediction that is not empty because of pruning alone, and whether the volume was run twice.

    Args:
        predict: runs `network` over the slices of a prediction that are `pruned`; over all of them without one.
        clean: cleans labels in place.
    """
    first = predict(None)
    gated = prunes(network)
    anything = gated and bool(first.labels.any())
    clean(first.labels)
    if not gated or not first.pruned.any() or first.labels.any():
        return first, False
    if anything:  # clean-up emptied all slices, also those that are already dense: their labels are gone
        first.pruned[:] = True
    with without_pruning(network):
        second = predict(first)
    clean(second.labels)
    return second, True
