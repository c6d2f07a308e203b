"""The training loop of `apformer benchmark systems`: the same for every network, by processor time.

Losses, augmentation, gates and budgets are those of `apformer train`; nothing is selected on validation cases. What is
measured is the average of the weights at the end.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..pruning.auxiliaries import Auxiliaries
from ..pruning.joint_search import JointSearch
from ..pruning.search_network import SearchedNetwork
from ..training.batches import endless
from ..training.cases import PreparedCases
from ..training.config import TrainingConfig
from ..training.gates import GateTraining
from ..training.losses import APFormerLoss
from .plugin_training import NO_AUXILIARIES

WARMUP = 0.05  # of the time
SSA_EVERY = 4  # steps; whole attention maps are costly


@dataclass(frozen=True)
class Phase:
    """A share of the time. gates: see `training.config.Stage`. search: masks are learned, and decided at its end."""

    share: float
    gates: str = "closed"
    search: bool = False


DENSE = (Phase(1.0),)
GATED = (Phase(0.5), Phase(0.12, "tighten"), Phase(0.08, "hold"), Phase(0.3, "hard"))
SEARCHED = (Phase(0.4), Phase(0.25, search=True), Phase(0.35))


@dataclass
class Effort:
    """What a training took: steps and images in all, and seconds of processor time per thread."""

    steps: int = 0
    images: int = 0
    seconds: float = 0.0


class Training:
    """One training of one network, in phases that share a warm-up and a cosine.

    Args:
        config: losses, batch, rates, precision, seed and budget.
        cases: to train on, built.
        seconds: of processor time per thread, for all phases.
        ssa: whether the attention of the network is regularised, as APFormer's is.
    """

    def __init__(self, config: TrainingConfig, cases: PreparedCases, seconds: float, ssa: bool) -> None:
        self.config, self.cases, self.seconds, self.ssa = config, cases, seconds, ssa
        self.loss = APFormerLoss(config.losses)
        self.effort = Effort()
        self.batches = endless(cases, config.stages[0], config.augmentation, config.seed)

    def run(self, network: nn.Module, phase: Phase) -> nn.Module:
        """Train through a phase; the average of the weights, as a network of the kind that was given."""
        config, stage = self.config, replace(self.config.stages[0], gates=phase.gates)
        gates = GateTraining(network, config)
        searched = network if isinstance(network, JointSearch) and phase.search else None
        groups = network.parameter_groups() if isinstance(network, JointSearch) else gates.parameter_groups()
        optimiser = torch.optim.AdamW(groups, lr=1.0, weight_decay=config.weight_decay, fused=True)
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        network.train()
        gates.enter(stage)
        began, allowed, before = _clock(), phase.share * self.seconds, self.effort.seconds
        for number, batch in enumerate(self.batches):
            spent = _clock() - began
            if number and spent >= allowed:  # every phase takes a step, however little time there is
                break
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * self._rate((before + spent) / self.seconds)
            losses = self._losses(network, batch)
            if phase.gates != "closed":
                losses = gates.add_budget(losses, losses["auxiliaries"], stage, min(1.0, spent / allowed))
            total = losses["total"] if searched is None else losses["total"] + searched.penalty()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)):
                optimiser.step()
                average.update_parameters(network)
            self.effort.steps += 1
            self.effort.images += len(batch["image"])
        self.effort.seconds = before + _clock() - began
        return average.module.eval()

    def _losses(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Any]:
        config = self.config
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits, auxiliaries = forward(network, batch["image"])
        layer = None
        if self.ssa and self.effort.steps % SSA_EVERY == 0:
            layer = self.effort.steps // SSA_EVERY
        losses = self.loss(logits, auxiliaries, batch["label"].long(), layer, batch.get("marks"), batch.get("missing"))
        return {**losses, "auxiliaries": auxiliaries}

    def _rate(self, progress: float) -> float:
        stage = self.config.stages[0]
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        rate = stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * cosine
        return rate * min(1.0, (progress + 1e-3) / WARMUP)


def _clock() -> float:
    """Seconds of processor time per thread, so that what else the machine does costs no entry its share."""
    return time.process_time() / torch.get_num_threads()


def forward(network: nn.Module, image: Tensor) -> tuple[Tensor, Auxiliaries]:
    """Logits and auxiliaries, also of a network that has none."""
    if isinstance(network, SearchedNetwork) or _has_auxiliaries(network):
        logits, auxiliaries = network(image, auxiliaries=True)
        return logits, auxiliaries
    return network(image), NO_AUXILIARIES


def _has_auxiliaries(network: nn.Module) -> bool:
    with suppress(AttributeError):
        return "auxiliaries" in type(network).forward.__code__.co_varnames
    return False
