"""Averages of a network's weights over its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

SHORTEST_MEMORY, LONGEST_MEMORY = 0.8, 0.998  # decays per step


class Average:
    """A copy of a network that follows it.

    Attributes:
        module: the copy; its weights are the average, its running statistics too. count: how often it was updated.
    """

    def __init__(self, network: nn.Module) -> None:
        self.module = copy.deepcopy(network)
        self.count = 0

    @torch.no_grad()
    def update(self, network: nn.Module, weight: float) -> None:
        """Move towards the network by `weight` of the distance; the first time, all of it."""
        weight = weight if self.count else 1.0
        mine, theirs = self.module.state_dict(), network.state_dict()
        real = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in real], [theirs[name].detach() for name in real], weight)
        for name in mine.keys() - set(real):  # counters
            mine[name].copy_(theirs[name])
        self.count += 1

    def follow(self, network: nn.Module, passed: float, reach: float) -> None:
        """Update by a step that is `passed` of the training; the average reaches back over `reach` of it."""
        decay = min(LONGEST_MEMORY, max(SHORTEST_MEMORY, math.exp(-passed / reach)))
        self.update(network, 1.0 - decay)

    def add(self, network: nn.Module) -> None:
        """Update so that all that were added count alike."""
        self.update(network, 1.0 / (self.count + 1))

    def weights(self) -> dict[str, Tensor]:
        """A copy on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.module.state_dict().items()}

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Start from these weights."""
        self.module.load_state_dict(weights)
