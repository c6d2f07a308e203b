"""Where to put the query threshold so that a stated share of tokens is kept (the Pareto curve's points, and [pruning]
final_keep), or of what tokens hold. Found from the prune head's outputs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
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
    return _bisected(margins, lambda threshold: kept_share(margins, threshold, ring) > share)[1]


def find_holding_threshold(margins: Sequence[Tensor], held: Sequence[Tensor], share: float, ring: int) -> float:
    """The highest threshold at which the kept tokens, safety ring included, hold `share` of all that tokens hold.

    Args:
        held: how much each token holds, of the margins' shapes.
    """
    return _bisected(margins, lambda threshold: held_share(margins, held, threshold, ring) >= share)[0]


def kept_share(margins: Sequence[Tensor], threshold: float, ring: int) -> float:
    """Share of the tokens that are kept, the safety ring included."""
    return statistics.fmean(float(dilate((margin > threshold).float(), ring).mean()) for margin in margins)


def held_share(margins: Sequence[Tensor], held: Sequence[Tensor], threshold: float, ring: int) -> float:
    """Share of what tokens hold that is held by those that are kept; 1 where none holds anything."""
    everything = sum(float(amount.sum()) for amount in held)
    kept = sum(
        float((dilate((margin > threshold).float(), ring) * amount).sum())
        for margin, amount in zip(margins, held, strict=True)
    )
    return kept / everything if everything else 1.0


def _bisected(margins: Sequence[Tensor], keeps: Callable[[float], bool]) -> tuple[float, float]:
    """The highest threshold at which enough is kept, and the one just above."""
    low = min(float(margin.min()) for margin in margins) - 1.0
    high = max(float(margin.max()) for margin in margins) + 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low, high
