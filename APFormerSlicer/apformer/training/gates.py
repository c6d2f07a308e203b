"""Training the gates of a prunable network: their phase, their learning rate, their budget."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..pruning.attention import GatedNetwork
from ..pruning.budget import Budget, Steering, dense_macs
from ..pruning.flops import count_macs
from ..pruning.gates import DependencyGate, QueryGate
from .config import Stage, TrainingConfig

GATING = {"closed": "off", "open": "soft", "tighten": "soft", "hold": "soft", "hard": "hard"}


class GateTraining:
    """What the loop does differently when a network has gates; without gates, nothing.

    Args:
        network: on its device. Prunable networks fulfil `GatedNetwork`.
        config: the whole recipe.
    """

    def __init__(self, network: nn.Module, config: TrainingConfig) -> None:
        self.network, self.config = network, config
        gates = [module for module in network.modules() if isinstance(module, QueryGate | DependencyGate)]
        self.parameters = [parameter for gate in gates for parameter in gate.parameters()]
        self.steering = Steering()
        self._targets: dict[tuple[int, ...], tuple[float, float]] = {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For AdamW. Gates move because of the loss alone: no weight decay, which would open them all by itself."""
        gates = {id(parameter) for parameter in self.parameters}
        weights = [parameter for parameter in self.network.parameters() if id(parameter) not in gates]
        groups: list[dict[str, Any]] = [{"params": weights, "rate": 1.0}]
        if self.parameters:
            rate = self.config.pruning.gate_rate if self.config.pruning else 1.0
            groups.append({"params": self.parameters, "rate": rate, "weight_decay": 0.0})
        return groups

    def enter(self, stage: Stage) -> None:
        """Set the network's gating; gates learn only while they are soft."""
        if not self.parameters:
            return
        gated(self.network).gating = GATING[stage.gates]
        for parameter in self.parameters:
            parameter.requires_grad_(GATING[stage.gates] == "soft")

    def prepare_validation(self, network: nn.Module, stage: Stage) -> None:
        """Gates that are being trained prune for real in validation."""
        if self.parameters:
            gated(network).gating = "off" if stage.gates == "closed" else "hard"

    def add_budget(
        self, losses: dict[str, Tensor], auxiliaries: Any, stage: Stage, progress: float
    ) -> dict[str, Tensor]:
        """The losses with what the budget adds to the total, and the batch's share of the dense cost for the log."""
        final, dense = self._target(stage)
        spent = auxiliaries.transformer_macs
        total = losses["total"]
        parts = {**losses, "cost": spent.detach().mean() / dense, "kept": auxiliaries.kept.detach().float().mean()}
        if stage.gates in ("tighten", "hold"):
            share = progress if stage.gates == "tighten" else 1.0
            parts["budget"] = self.steering.loss(spent, dense * (final / dense) ** share)
            total = total + parts["budget"]
        return {**parts, "total": total}

    def _target(self, stage: Stage) -> tuple[float, float]:
        """(budget, dense cost) of the transformer layers for one image of the stage's size."""
        if stage.size not in self._targets:
            assert self.config.pruning is not None
            network = gated(self.network)
            device = next(self.network.parameters()).device
            before, network.gating = network.gating, "off"
            try:
                shape = (1, self.config.channels, *stage.size)
                total = count_macs(self.network, shape).total
                with torch.no_grad():
                    kept = self.network.eval()(torch.zeros(shape, device=device), auxiliaries=True)[1].kept
            finally:
                network.gating = before
                self.network.train()
            tokens = kept[0].numel()
            dense = dense_macs(network.costs, tokens)
            prunes_keys = any(isinstance(module, DependencyGate) for module in self.network.modules())
            budget = Budget.parse(self.config.pruning.budget)
            target = budget.transformer_macs(network.costs, tokens, prunes_keys, round(total - dense))
            self._targets[stage.size] = (min(target, dense), dense)
        return self._targets[stage.size]

    def state_dict(self) -> dict[str, float | None]:
        """For the checkpoint."""
        return self.steering.state_dict()

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """From the checkpoint."""
        self.steering.load_state_dict(state)


def gated(network: nn.Module) -> GatedNetwork:
    """The network as what its gates make it."""
    return cast(GatedNetwork, network)
