"""The training loop: staged sizes, one cosine, EMA, checkpoints that resume exactly, selection on frozen validation."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler

from ..bundles import Bundle
from ..errors import ConfigError
from ..networks import build_network
from .augment import AugmentedCases
from .cases import PreparedCases
from .config import Stage, TrainingConfig
from .gates import GateTraining
from .losses import APFormerLoss
from .start import load_base
from .validation import validate

Row = dict[str, Any]
CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


def seed_everything(seed: int) -> None:
    """Python, numpy and torch; augmentation seeds itself per item."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fingerprint(config: TrainingConfig) -> str:
    """Identifies what decides the weights, so that a checkpoint is only ever resumed under its own recipe."""
    recipe = {key: value for key, value in asdict(config).items() if key not in ("card", "description")}
    return hashlib.sha256(repr(recipe).encode()).hexdigest()


class Trainer:
    """Trains one network.

    Args:
        config: the whole recipe.
        training, validation: prepared cases (built).
        run_folder: checkpoint and log go here.
        device: where to compute.
        workers: data-loader processes; 0 = in this process.
        on_epoch: called with each epoch's log row.
    """

    def __init__(
        self,
        config: TrainingConfig,
        training: PreparedCases,
        validation: PreparedCases,
        run_folder: Path,
        device: torch.device,
        *,
        workers: int = 1,
        on_epoch: Callable[[Row], None] = lambda row: None,
    ) -> None:
        seed_everything(config.seed)
        self.config, self.training, self.validation = config, training, validation
        self.run_folder, self.device, self.workers, self.on_epoch = run_folder, device, workers, on_epoch
        layout = torch.channels_last if config.preprocessing.spatial_dims == 2 else torch.channels_last_3d
        network = build_network(config.network, config.network_arguments)
        # Channels last: convolutions about 10 % faster. torch's type stubs leave memory_format out.
        self.network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        self.loss = APFormerLoss(config.losses)
        self.gates = GateTraining(self.network, config)
        self.optimiser = torch.optim.AdamW(self.gates.parameter_groups(), lr=1.0, weight_decay=config.weight_decay)
        self.epoch = 0
        self.step = 0
        self.skipped = 0  # steps of this epoch whose gradient was not finite
        self.rows: list[Row] = []
        self.best: tuple[float, dict[str, Tensor]] = (-1.0, {})

    def steps_in(self, stage: Stage) -> int:
        """Optimiser steps of one epoch; an incomplete last batch is dropped unless it is the only one."""
        return max(1, len(self.training) // stage.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole schedule."""
        return sum(stage.epochs * self.steps_in(stage) for stage in self.config.stages)

    def learning_rate(self, stage: Stage) -> float:
        """Cosine within the stage from its learning rate to its final one, after one warm-up at the very start."""
        progress = self._progress(stage)
        warmup = min(1.0, (self.step + 1) / max(1.0, self.config.warmup_fraction * self.total_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return warmup * (stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * cosine)

    def _progress(self, stage: Stage) -> float:
        """How much of the stage is done, 0 to 1."""
        before = 0
        for earlier in self.config.stages:
            if earlier is stage:
                break
            before += earlier.epochs * self.steps_in(earlier)
        return (self.step - before) / (stage.epochs * self.steps_in(stage))

    def run(self) -> dict[str, Tensor]:
        """Train to the end and return the selected EMA weights (best mean validation Dice, last stage only)."""
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            stage = self.config.stage_of(self.epoch)
            row: Row = {"epoch": self.epoch + 1, "size": list(stage.size), **self._train_epoch(stage)}
            self.epoch += 1
            if self._validates(stage):
                self.gates.prepare_validation(self.ema.module, stage)
                row["dice"] = validate(self.ema.module, self.validation, self.config, self.device)
                self._select(row["dice"])
            row["seconds"] = round(time.monotonic() - started, 2)
            self.rows.append(row)
            self.save_checkpoint()
            self.on_epoch(row)
        return self.best[1]

    def _validates(self, stage: Stage) -> bool:
        return self.epoch == self.config.epochs or self.epoch % stage.validate_every == 0

    def _select(self, dice: dict[str, float]) -> None:
        """Keep these weights if they are the best of the last stage (earlier stages saw other image sizes)."""
        mean = sum(dice.values()) / len(dice)
        in_last_stage = self.epoch > self.config.epochs - self.config.stages[-1].epochs
        if in_last_stage and mean > self.best[0]:
            self.best = (mean, {k: v.detach().cpu().clone() for k, v in self.ema.module.state_dict().items()})

    def _batches(self, stage: Stage) -> Iterator[dict[str, Tensor]]:
        dataset = AugmentedCases(self.training, stage, self.config.augmentation, self.config.seed)
        dataset.epoch = self.epoch
        order = torch.Generator().manual_seed(self.config.seed * 7919 + self.epoch)
        yield from DataLoader(
            dataset,
            batch_size=stage.batch_size,
            sampler=RandomSampler(dataset, generator=order),
            drop_last=len(dataset) >= stage.batch_size,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )

    def _train_epoch(self, stage: Stage) -> Row:
        self.network.train()
        for name, parameter in self.network.named_parameters():
            if ".position." in name:
                parameter.requires_grad_(stage.learn_position)
        self.gates.enter(stage)
        torch.manual_seed(self.config.seed * 104_729 + self.epoch)  # dropout: a resumed run continues identically
        self.skipped = 0
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        rate = 0.0
        for batch in self._batches(stage):
            rate = self.learning_rate(stage)
            for name, value in self._train_step(stage, batch, rate).items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
            self.step += 1
        means: Row = {f"loss_{name}": round(sums[name] / counts[name], 5) for name in sums}
        if self.skipped:
            means["skipped_steps"] = self.skipped
        return {"learning_rate": rate, **means}

    def _train_step(self, stage: Stage, batch: dict[str, Tensor], rate: float) -> dict[str, float]:
        image, label = batch["image"].to(self.device), batch["label"].to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits, auxiliaries = self.network(image, auxiliaries=True)
        ssa_layer = None
        if stage.ssa_every and self.step % stage.ssa_every == 0:
            ssa_layer = self.step // stage.ssa_every
        losses = self.loss(logits, auxiliaries, label.long(), ssa_layer)
        if stage.gates != "closed":
            losses = self.gates.add_budget(losses, auxiliaries, stage, self._progress(stage))
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        if not torch.isfinite(norm):
            self.skipped += 1  # one bad batch must not ruin the weights; the log tells how many there were
            return {}
        self.optimiser.step()
        self.ema.update_parameters(self.network)
        return {name: float(value.detach()) for name, value in losses.items()}

    def start_from(self, base: Bundle) -> None:
        """Take over the weights of a trained model, before the first epoch.

        Raises:
            ConfigError: it does not fit the configuration.
        """
        load_base(self.network, base, self.config)
        self.ema.module.load_state_dict(self.network.state_dict())

    def save_checkpoint(self) -> None:
        """Write everything that decides the future of the run; the old checkpoint stays until the new one is whole."""
        state = {
            "fingerprint": fingerprint(self.config),
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "gates": self.gates.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "rows": json.dumps(self.rows),
            "best_dice": self.best[0],
            "best": self.best[1],
        }
        partial = self.run_folder / f"{CHECKPOINT}.partial"
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, self.run_folder / CHECKPOINT)
        (self.run_folder / LOG).write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def resume(self) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            ConfigError: the checkpoint belongs to another configuration.
        """
        state = torch.load(self.run_folder / CHECKPOINT, map_location="cpu", weights_only=True)
        if state["fingerprint"] != fingerprint(self.config):
            raise ConfigError(
                f"The checkpoint in {self.run_folder} was made with another configuration.",
                "Continuing would mix two recipes.",
                "Use the configuration it was started with, or another output folder.",
            )
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.gates.load_state_dict(state["gates"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.rows = json.loads(state["rows"])
        self.best = (state["best_dice"], state["best"])
