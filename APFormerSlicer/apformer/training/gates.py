"""Training the gates of a prunable network: their phase, their learning rate, their budget.

Two ways to gates that prune well. They *learn* what to prune while they are soft ("open", "tighten", "hold"), which
costs more than a dense network, and are frozen then ("hard"). Or they are hard from the beginning, as soon as the prune
head, which learns from labels in every phase, knows where the foreground is ("ready"), and their threshold is *set*: by
the share of tokens to be kept and by what must not be lost. That costs less than a dense network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..pruning.attention import GatedNetwork
from ..pruning.budget import Budget, Steering, dense_macs
from ..pruning.flops import count_macs
from ..pruning.gates import DependencyGate, QueryGate
from .config import Stage, TrainingConfig

GATING = {"closed": "off", "open": "soft", "tighten": "soft", "hold": "soft", "hard": "hard"}
READY = "ready"
OPEN_AT_LATEST = 0.25  # share of the training, after which gates open, whatever the prune head knows
LOOK_EVERY = 0.04  # share of the training: looking at the training images takes time
SET_AT = (0.0, 0.1, 0.5)  # of the training, that the threshold is set at: the prune head goes on learning


class Thresholds(Protocol):
    """Sets query thresholds by the training cases; see `calibration.Calibration`."""

    def set_threshold(self, network: nn.Module) -> None:
        """Set the network's threshold."""

    def is_ready(self, network: nn.Module) -> bool:
        """Whether the network's prune head knows enough for its gates to be hard."""


class GateTraining:
    """What the loop does differently when a network has gates; without gates, nothing.

    Args:
        network: on its device. Prunable networks fulfil `GatedNetwork`.
        config: the whole recipe.
        thresholds: sets those of hard gates; without it they stay as they are, and gates that wait open at once.

    Attributes:
        opened: whether gates that waited for the prune head are hard by now.
    """

    def __init__(self, network: nn.Module, config: TrainingConfig, thresholds: Thresholds | None = None) -> None:
        self.network, self.config, self.thresholds = network, config, thresholds
        self.opened = False
        self._looked: float | None = None  # share of the training at which `ready` was asked last
        self._set: float | None = None  # share of the training at which the threshold was set last
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

    def phase(self, stage: Stage) -> str:
        """What the gates do now: as the stage says, but "closed" or "hard" where it says "ready"."""
        if stage.gates != READY:
            return stage.gates
        return "hard" if self.opened else "closed"

    def opens(self, stage: Stage, share: float) -> bool:
        """Whether closed gates are to open now, after that share of the training."""
        if stage.gates != READY or self.opened:
            return False
        if share >= OPEN_AT_LATEST or self.thresholds is None:
            return True
        if self._looked is not None and share - self._looked < LOOK_EVERY:
            return False
        self._looked = share
        gated(self.network).gating = "hard"  # what is asked is how it would prune
        return self.thresholds.is_ready(self.network)

    def settle(self, networks: Iterable[nn.Module], stage: Stage, share: float) -> bool:
        """Set the thresholds of hard gates, at the beginning and a few times more; whether it was done."""
        due = self._set is None or any(self._set < mark <= share for mark in SET_AT)
        if self.thresholds is None or self.phase(stage) != "hard" or not due:
            return False
        self._set = share
        for network in networks:
            self.prepare_validation(network, stage)
            self.thresholds.set_threshold(network)
        return True

    def enter(self, stage: Stage) -> None:
        """Set the network's gating; gates learn only while they are soft."""
        if not self.parameters:
            return
        gating = GATING[self.phase(stage)]
        gated(self.network).gating = gating
        for parameter in self.parameters:
            parameter.requires_grad_(gating == "soft")

    def prepare_validation(self, network: nn.Module, stage: Stage) -> None:
        """Gates that are being trained prune for real in validation."""
        if self.parameters:
            gated(network).gating = "off" if self.phase(stage) == "closed" else "hard"

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
            learning = [module for module in self.network.modules() if module.training]
            try:
                shape = (1, self.config.channels, *stage.size)
                total = count_macs(self.network, shape).total
                with torch.no_grad():
                    kept = self.network.eval()(torch.zeros(shape, device=device), auxiliaries=True)[1].kept
            finally:
                network.gating = before
                for module in learning:
                    module.training = True
            tokens = kept[0].numel()
            dense = dense_macs(network.costs, tokens)
            prunes_keys = any(isinstance(module, DependencyGate) for module in self.network.modules())
            budget = Budget.parse(self.config.pruning.budget)
            target = budget.transformer_macs(network.costs, tokens, prunes_keys, round(total - dense))
            self._targets[stage.size] = (min(target, dense), dense)
        return self._targets[stage.size]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {**self.steering.state_dict(), "opened": self.opened, "looked": self._looked, "set": self._set}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint."""
        self.steering.load_state_dict(dict(state))
        self.opened, self._looked, self._set = bool(state.get("opened")), state.get("looked"), state.get("set")


def gated(network: nn.Module) -> GatedNetwork:
    """The network as what its gates make it."""
    return cast(GatedNetwork, network)
