"""A compute budget for the transformer layers, and the term that steers the gates to it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from .attention import LayerCost


def _refuse(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, "It cannot serve as a compute budget.", remedy)


@dataclass(frozen=True)
class Budget:
    """What pruning may leave, on average over the data. Exactly one of the two is given.

    Args:
        keep: 0 < keep <= 1. The transformer layers may spend what they would if this share of the tokens were kept as
            queries and, from the second layer on, as keys.
        speed: >= 1. The whole network may spend its dense multiply-accumulates divided by this number.

    Raises:
        ConfigError: neither, both, or a value out of range.
    """

    keep: float | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.speed is None):
            raise _refuse("A budget names both or neither of keep and speed.", "Give one: keep=0.3 or speed=2.")
        if self.keep is not None and not (math.isfinite(self.keep) and 0 < self.keep <= 1):
            raise _refuse(f"keep is {self.keep}.", "Give a share of the tokens above 0 and up to 1, such as 0.3.")
        if self.speed is not None and not (math.isfinite(self.speed) and self.speed >= 1):
            raise _refuse(f"speed is {self.speed}x.", "Give a factor of 1 or more, such as 2x.")

    @staticmethod
    def parse(text: str) -> Budget:
        """ "0.3" or "keep=0.3" is a share of tokens; "2x" or "speed=2x" a factor.

        Raises:
            ConfigError: anything else, or a value out of range.
        """
        match = re.fullmatch(r"(?:(keep|speed)=)?([0-9]*\.?[0-9]+)(x?)", text.strip())
        kind = match and (match[1] or ("speed" if match[3] else "keep"))
        if match is None or (kind == "keep" and match[3]):
            raise _refuse(f"The budget {text!r} is not understood.", "Write keep=0.3 or speed=2x.")
        return Budget(**{str(kind): float(match[2])})

    def __str__(self) -> str:
        return f"keep={self.keep:g}" if self.keep is not None else f"speed={self.speed:g}x"

    def transformer_macs(self, costs: Sequence[LayerCost], tokens: int, prunes_keys: bool, other_macs: int) -> float:
        """Multiply-accumulates one image may cost in the transformer layers, on average.

        Args:
            costs: of the layers.
            tokens: tokens of an image.
            prunes_keys: whether keys can be dropped.
            other_macs: what the rest of the network costs per image.

        Raises:
            ConfigError: `speed` is out of reach even with every token pruned.
        """
        if self.keep is not None:
            kept = self.keep * tokens
            keys = [tokens if number == 0 or not prunes_keys else kept for number in range(len(costs))]
            return float(sum(cost.macs(kept, n) for cost, n in zip(costs, keys, strict=True)))
        assert self.speed is not None
        whole = other_macs + dense_macs(costs, tokens)
        left = whole / self.speed - other_macs
        if left <= 0:
            raise _out_of_reach(self.speed, other_macs, whole)
        return left

    def kept_share(self, costs: Sequence[LayerCost], tokens: int, other_macs: int) -> float:
        """The share of the tokens that may be kept as queries, on average, where every token stays a key.

        Args:
            costs, tokens, other_macs: see `transformer_macs`.

        Raises:
            ConfigError: `speed` is out of reach.
        """
        if self.keep is not None:
            return self.keep
        assert self.speed is not None
        keys = sum(cost.per_key for cost in costs) * tokens
        queries = dense_macs(costs, tokens) - keys
        whole = other_macs + keys + queries
        share = (whole / self.speed - other_macs - keys) / queries
        if share <= 0:
            raise _out_of_reach(self.speed, other_macs + keys, whole)
        return min(1.0, share)


def _out_of_reach(speed: float, least: float, whole: float) -> ConfigError:
    """least: of `whole`, the multiply-accumulates that stay whatever is pruned."""
    return ConfigError(
        f"A speed of {speed:g}x is out of reach: {least / 1e9:.2f} of {whole / 1e9:.2f} GMAC are spent where nothing "
        "can be pruned.",
        f"Even with every token pruned the network would be {whole / least:.2f}x lighter.",
        f"Ask for less than {whole / least:.2f}x.",
    )


def dense_macs(costs: Sequence[LayerCost], tokens: int) -> float:
    """Multiply-accumulates of the transformer layers when nothing is pruned."""
    return float(sum(cost.macs(tokens, tokens) for cost in costs))


class Steering:
    """Turns "at most this much on average" into a loss: an augmented Lagrangian of the mean excess.

    The multiplier grows while the network spends too much and shrinks while it spends too little, so the budget is met
    without a weight to tune; a quadratic term damps it. An image may spend what it needs: only the running mean counts.

    Args:
        rate: change of the multiplier per step and unit of relative excess.
        damping: weight of the quadratic term.
        memory: of the running mean, per step.
    """

    def __init__(self, rate: float = 0.01, damping: float = 1.0, memory: float = 0.95) -> None:
        self.rate, self.damping, self.memory = rate, damping, memory
        self.multiplier = 0.0
        self.mean: float | None = None

    def loss(self, macs: Tensor, target: float) -> Tensor:
        """Penalty for a batch.

        Args:
            macs: (B,), differentiable.
            target: what an image may cost on average.
        """
        relative = macs.mean() / target
        seen = float(relative.detach())
        self.mean = seen if self.mean is None else self.memory * self.mean + (1 - self.memory) * seen
        excess = self.mean - 1
        self.multiplier = max(0.0, self.multiplier + self.rate * excess)
        # The running mean as value, this batch as gradient: one dense image is no reason to prune.
        smooth = relative + (self.mean - relative).detach() - 1
        return self.multiplier * smooth + 0.5 * self.damping * torch.clamp(smooth, min=0.0).square()

    def state_dict(self) -> dict[str, float | None]:
        """What a resumed training needs."""
        return {"multiplier": self.multiplier, "mean": self.mean}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """The counterpart of `state_dict`."""
        self.multiplier = float(state["multiplier"] or 0.0)
        self.mean = state["mean"]
