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
        self._pairs: tuple[nn.Module, list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]] | None = None

    @torch.no_grad()
    def update(self, network: nn.Module, weight: float) -> None:
        """Move towards the network by `weight` of the distance; the first time, all of it."""
        mine, theirs, counters = self._matched(network)
        torch._foreach_lerp_(mine, theirs, weight if self.count else 1.0)
        for counter, like in counters:
            counter.copy_(like)
        self.count += 1

    def _matched(self, network: nn.Module) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """The tensors of both that belong together, found once: they are changed in place only."""
        if self._pairs is None or self._pairs[0] is not network:
            state = network.state_dict()
            pairs = [(tensor, state[name].detach()) for name, tensor in self.module.state_dict().items()]
            real = [pair for pair in pairs if pair[0].is_floating_point()]
            counters = [pair for pair in pairs if not pair[0].is_floating_point()]
            self._pairs = (network, [a for a, _ in real], [b for _, b in real], counters)
        return self._pairs[1:]

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
