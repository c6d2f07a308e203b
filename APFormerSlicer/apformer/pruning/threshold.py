"""Where to put the query threshold so that a stated share of tokens is kept: the Pareto curve's points, and [pruning]
final_keep. Found from the prune head's outputs alone, without labels."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .gates import QueryGate, dilate

BISECTIONS = 30


@contextmanager
def recorded_margins(gate: QueryGate) -> Iterator[list[Tensor]]:
    """While open, every call of `gate` appends what it compares with its threshold, float32 (B, *grid) on the CPU."""
    margins: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        logits = inputs[0].detach().float().cpu()
        margins.append(logits[:, 1] - logits[:, 0])

    handle = gate.register_forward_pre_hook(record)
    try:
        yield margins
    finally:
        handle.remove()


def find_threshold(margins: Sequence[Tensor], share: float, ring: int) -> float:
    """The threshold at which `share` of all tokens are kept on average, the safety ring included, by bisection.

    Args:
        margins: of `recorded_margins`; every entry weighs the same.
        share: 0 keeps no token, 1 all.
        ring: width of the safety ring, tokens.
    """
    low = min(float(margin.min()) for margin in margins) - 1.0
    high = max(float(margin.max()) for margin in margins) + 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = statistics.fmean(float(dilate((margin > middle).float(), ring).mean()) for margin in margins)
        low, high = (middle, high) if kept > share else (low, middle)
    return high
