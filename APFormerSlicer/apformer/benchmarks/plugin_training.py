"""Training somebody else's network, plain and under gates, for `apformer benchmark plugin`.

A lean loop: no checkpoints, nothing selected on validation cases. The result is the average of the weights at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..pruning.auxiliaries import Auxiliaries
from ..pruning.plugin import PrunedNetwork
from ..training.batches import endless
from ..training.cases import PreparedCases
from ..training.config import Stage, TrainingConfig
from ..training.gates import GateTraining
from ..training.loop import seed_everything
from ..training.losses import APFormerLoss

NO_AUXILIARIES = Auxiliaries(None, [], (), torch.empty(0), torch.empty(0))  # of a network without gates
Say = Callable[[str], None]


def train(
    network: nn.Module, config: TrainingConfig, cases: PreparedCases, minutes: float | None, say: Say
) -> nn.Module:
    """Train through all stages of `config`; `network` itself is changed.

    Args:
        network: a plain one, for stages with closed gates, or a PrunedNetwork; on the CPU.
        config: its network arguments are not looked at.
        cases: to train on, built.
        minutes: of all stages, each its share by epochs; None runs the epochs, which gives the same weights every time.
        say: told the losses at the end of each epoch.

    Returns: a network as was given, with the exponential moving average of its weights.
    """
    seed_everything(config.seed)
    gates, loss = GateTraining(network, config), APFormerLoss(config.losses)
    optimiser = torch.optim.AdamW(gates.parameter_groups(), lr=1.0, weight_decay=config.weight_decay, fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
    network.train()
    done = told = 0
    for stage in config.stages:
        gates.enter(stage)
        seconds = None if minutes is None else 60 * minutes * stage.epochs / config.epochs
        for progress, batch in _batches(stage, config, cases, done, seconds):
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * _learning_rate(config, stage, done, progress)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
                logits, auxiliaries = _run(network, batch["image"])
            losses = loss(logits, auxiliaries, batch["label"].long(), None, batch.get("marks"), batch.get("missing"))
            if stage.gates != "closed":
                losses = gates.add_budget(losses, auxiliaries, stage, progress)
            optimiser.zero_grad(set_to_none=True)
            losses["total"].backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            if torch.isfinite(norm):  # one bad batch must not ruin the weights
                optimiser.step()
                average.update_parameters(network)
            reached = done + int(progress * stage.epochs)
            if reached > told:
                told = reached
                say(f"{told} of {config.epochs} epochs: {_as_words(losses)}")
        told = done = done + stage.epochs
        say(f"{told} of {config.epochs} epochs, gates {stage.gates}: {_as_words(losses)}")
    return average.module.eval()


def _run(network: nn.Module, image: Tensor) -> tuple[Tensor, Auxiliaries]:
    if isinstance(network, PrunedNetwork):
        return cast(tuple[Tensor, Auxiliaries], network(image, auxiliaries=True))
    return network(image), NO_AUXILIARIES


def _batches(
    stage: Stage, config: TrainingConfig, cases: PreparedCases, first_epoch: int, seconds: float | None
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Batches of a stage, each with how much of the stage is done before it: in epochs, or in time if that is given."""
    steps = stage.epochs * max(1, len(cases) // stage.batch_size)
    started = time.monotonic()
    for step, batch in enumerate(endless(cases, stage, config.augmentation, config.seed + first_epoch)):
        progress = step / steps if seconds is None else (time.monotonic() - started) / seconds
        if progress >= 1:
            return
        yield progress, batch


def _learning_rate(config: TrainingConfig, stage: Stage, first_epoch: int, progress: float) -> float:
    """Cosine within the stage, after one warm-up at the very start."""
    done = (first_epoch + progress * stage.epochs) / config.epochs
    warmup = min(1.0, (done + 1e-3) / max(1e-3, config.warmup_fraction))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return warmup * (stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * cosine)


def _as_words(losses: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {float(value.detach()):.3f}" for name, value in losses.items())
