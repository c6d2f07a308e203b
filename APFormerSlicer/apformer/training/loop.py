"""The training loop: staged sizes, one cosine, EMA, checkpoints that resume exactly, selection on frozen validation."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..bundles import Bundle
from ..errors import ConfigError
from ..networks import build_network
from .augment import AugmentedCases, Draws
from .cases import PreparedCases
from .checkpoint import CHECKPOINT, check_alike, damaged, load_checkpoint, save_checkpoint
from .config import Stage, TrainingConfig
from .gates import GateTraining
from .losses import APFormerLoss
from .pace import Pace, WholePasses
from .parallel import Processes
from .rehearsal import Rehearsal
from .start import load_base
from .validation import validate

Row = dict[str, Any]
Batch = dict[str, Tensor]


def seed_everything(seed: int) -> None:
    """Python, numpy and torch; augmentation seeds itself per item."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fingerprint(config: TrainingConfig) -> str:
    """Identifies what decides the weights, so that a checkpoint is only ever resumed under its own recipe."""
    pruning = config.pruning and replace(config.pruning, energy=0.0, final_keep=None)  # applied to trained weights
    recipe = replace(config, pruning=pruning, version="", description="", card={}, file="")
    return hashlib.sha256(repr(asdict(recipe)).encode()).hexdigest()


def ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, each made while the one before it is worked on. What making one raises is raised here.

    They are made by a thread that computes with one core: two teams of threads that compete for the same cores wait for
    each other most of the time.
    """
    making = iter(batches)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as maker:
        coming = maker.submit(next, making, None)
        while (batch := coming.result()) is not None:
            torch.set_num_threads(threads)  # of this thread; and of those to come, which the maker's setting would be
            coming = maker.submit(next, making, None)
            yield batch


def mean_of(dice: Mapping[str, float | None]) -> float | None:
    """Mean Dice over the labels that are judged; None when none is."""
    judged = [value for value in dice.values() if value is not None]
    return sum(judged) / len(judged) if judged else None


def _never() -> None:
    """The default of `check`: nobody asks for an end."""


class Trainer:
    """Trains one network.

    Args:
        config: the whole recipe.
        training, validation: prepared cases (built).
        run_folder: checkpoint and log go here.
        device: where to compute.
        workers: data-loader processes; 0 = a thread of this process.
        on_epoch: called with each epoch's log row.
        pace: decides how long epochs are; by default each is one pass over the cases.
        rehearsal: what keeps the skills of the base alive, if anything.
        patience: validations without a better one after which a phase ends early; 0 = never.
        settle: called with the network when gates become hard, before the weights recover from it, and with the moving
            average; sets what is to be pruned.
        check: called before every step and every validation image; stops the training by raising.
        processes: all processes of this training; by default this one alone.
        judged: names of the labels that the cases label; by default all. Of these, those that a validation case has
            decide; where none has any, the last weights are taken.
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
        pace: Pace | None = None,
        rehearsal: Rehearsal | None = None,
        patience: int = 0,
        settle: Callable[[nn.Module], None] = lambda network: None,
        check: Callable[[], None] = _never,
        processes: Processes | None = None,
        judged: Collection[str] = (),
    ) -> None:
        seed_everything(config.seed)
        self.config, self.training, self.validation = config, training, validation
        self.run_folder, self.device, self.workers, self.on_epoch = run_folder, device, workers, on_epoch
        self.pace: Pace = pace or WholePasses(len(training))
        self.rehearsal, self.patience, self.settle, self.check = rehearsal, patience, settle, check
        self.processes = processes or Processes()
        self.judged = [label.name for label in config.labels if not judged or label.name in judged]
        layout = torch.channels_last if config.preprocessing.spatial_dims == 2 else torch.channels_last_3d
        network = build_network(config.network, config.network_arguments)
        if self.processes.size > 1 and device.type == "cuda":  # gloo on CPUs has no such layer
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # Channels last: convolutions about 10 % faster. torch's type stubs leave memory_format out.
        self.network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.joined = self.network  # the same, averaging gradients over all processes
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        self.loss = APFormerLoss(config.losses)
        self.gates = GateTraining(self.network, config)
        self.optimiser = torch.optim.AdamW(self.gates.parameter_groups(), lr=1.0, weight_decay=config.weight_decay)
        self.epoch = 0  # how many are done
        self.step = 0  # how many were taken in all
        self.within = 0.0  # how much of the present epoch is done, 0 to 1
        self.skipped = 0  # steps of this epoch whose gradient was not finite
        self.unreadable: dict[str, str] = {}  # cases that could not be read while training, and why
        self.rows: list[Row] = []
        self.best: tuple[float, dict[str, Tensor]] = (-1.0, {})

    def learning_rate(self, stage: Stage) -> float:
        """Cosine within the stage from its learning rate to its final one, after one warm-up at the very start."""
        done = (self.epoch + self.within) / self.config.epochs
        warmup = min(1.0, (done + 1e-3) / max(1e-3, self.config.warmup_fraction))
        cosine = 0.5 * (1 + math.cos(math.pi * self._progress(stage)))
        return warmup * (stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * cosine)

    def _progress(self, stage: Stage) -> float:
        """How much of the stage is done, 0 to 1."""
        return (self.epoch - self._first_epoch(stage) + self.within) / stage.epochs

    def _first_epoch(self, stage: Stage) -> int:
        """The number (from 0) of the stage's first epoch."""
        place = next(number for number, each in enumerate(self.config.stages) if each is stage)
        return sum(earlier.epochs for earlier in self.config.stages[:place])

    def run(self) -> dict[str, Tensor]:
        """Train to the end and return the selected EMA weights (best mean validation Dice, last stage only)."""
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            stage = self.config.stage_of(self.epoch)
            steps = self.processes.from_first(self.pace.steps(self.epoch, stage, self.rows))
            row: Row = {"epoch": self.epoch + 1, "size": list(stage.size), "gates": stage.gates, "steps": steps}
            row |= self._train_epoch(stage, steps)
            row["train_seconds"] = round(time.monotonic() - started - row.get("settle_seconds", 0.0), 3)
            self.epoch += 1
            self.within = 0.0
            if self._validates(stage):
                row["dice"] = self._validate(stage)
                self._select(row["dice"])
            row["seconds"] = round(time.monotonic() - started, 3)
            self.rows.append(row)
            self._stop_early(stage)
            if self.processes.is_first:
                self.save_checkpoint()
                self.on_epoch(row)
            self.processes.wait()
        return self.best[1]

    def _validates(self, stage: Stage) -> bool:
        return self.epoch == self.config.epochs or self.epoch % stage.validate_every == 0

    def _validate(self, stage: Stage) -> dict[str, float | None]:
        """Pooled Dice of the EMA weights, measured by the first process for all; None for what no case has."""
        self.gates.prepare_validation(self.ema.module, stage)
        dice: dict[str, float | None] = {}
        if self.processes.is_first:
            found = validate(self.ema.module, self.validation, self.config, self.device, self.check)
            dice = {name: found[name] for name in self.judged}
        return self.processes.from_first(dice)

    def dice_of(self, weights: dict[str, Tensor]) -> float:
        """Mean Dice of other weights of this network, once training is over; by what `run` selects by."""
        self.ema.module.load_state_dict(weights)
        return mean_of(self._validate(self.config.stages[-1])) or 0.0

    @property
    def is_judged(self) -> bool:
        """Whether a validation case has any of the labels, as found out by the validations until now."""
        return any(mean_of(row["dice"]) is not None for row in self.rows if "dice" in row)

    def _select(self, dice: dict[str, float | None]) -> None:
        """Keep these weights if they are the best of the last stage (earlier stages saw other image sizes), or the
        last where nothing judges them."""
        mean = mean_of(dice)
        in_last_stage = self.epoch > self.config.epochs - self.config.stages[-1].epochs
        if in_last_stage and (mean is None or mean > self.best[0]):
            weights = {k: v.detach().cpu().clone() for k, v in self.ema.module.state_dict().items()}
            self.best = (mean or 0.0, weights)

    def _stop_early(self, stage: Stage) -> None:
        """Go on to the next phase, or end, when validation has not improved for `patience` times."""
        first = self._first_epoch(stage)
        found = [mean_of(row["dice"]) for row in self.rows if "dice" in row and row["epoch"] > first]
        scores = [score for score in found if score is not None]
        recent, earlier = scores[-self.patience :], scores[: -self.patience]
        last = self.epoch == first + stage.epochs
        if self.patience and not last and earlier and max(recent) <= max(earlier):
            self.rows[-1]["stopped_early"] = True
            self.epoch = first + stage.epochs

    def _batches(self, stage: Stage, steps: int) -> Iterator[Batch]:
        dataset = AugmentedCases(self.training, stage, self.config.augmentation, self.config.seed)
        dataset.epoch = self.epoch
        dataset.unreadable = self.unreadable
        draws = Draws(len(dataset), stage.batch_size, steps, self.config.seed * 7919 + self.epoch)
        loader = DataLoader(
            dataset,
            batch_sampler=[self.processes.share_of(batch) for batch in draws.batches()],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )
        yield from loader if self.workers else ahead(loader)

    def _train_epoch(self, stage: Stage, steps: int) -> Row:
        self.network.train()
        for name, parameter in self.network.named_parameters():
            if ".position." in name:
                parameter.requires_grad_(stage.learn_position)
        self.gates.enter(stage)
        means: Row = {}
        if stage.gates == "hard" and self.epoch == self._first_epoch(stage):
            began = time.monotonic()
            for network in (self.network, self.ema.module):
                self.gates.prepare_validation(network, stage)
                self.settle(network)
            means["settle_seconds"] = round(time.monotonic() - began, 3)  # tells nothing of how long steps take
        self.joined = self.processes.joined(self.network, self.device)
        # Dropout: a resumed run continues identically, and no two processes drop the same.
        torch.manual_seed(self.config.seed * 104_729 + self.epoch * self.processes.size + self.processes.rank)
        self.skipped = 0
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        rate = 0.0
        for number, batch in enumerate(self._batches(stage, steps)):
            self.check()
            self.within = number / steps
            rate = self.learning_rate(stage)
            for name, value in self.train_step(stage, batch, rate).items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
            self.step += 1
        means |= {f"loss_{name}": round(sums[name] / counts[name], 5) for name in sums}
        if self.skipped:
            means["skipped_steps"] = self.skipped
        return {"learning_rate": rate, **means}

    def train_step(self, stage: Stage, batch: Batch, rate: float) -> dict[str, float]:
        """One optimiser step on one batch; the losses by name, none when the step was skipped.

        Everything that a step needs is in its arguments and in the network, so that another loop, such as that of a
        federated client, can drive it.
        """
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits, auxiliaries = self.joined(batch["image"], auxiliaries=True)
            said = None if self.rehearsal is None else self.rehearsal.ask(batch["image"])
        label = batch["label"].long()
        if self.rehearsal is not None and said is not None:
            label = self.rehearsal.complete(label, said, batch.get("missing"))
        ssa_layer = None
        if stage.ssa_every and self.step % stage.ssa_every == 0:
            ssa_layer = self.step // stage.ssa_every
        losses = self.loss(logits, auxiliaries, label, ssa_layer, batch.get("marks"), batch.get("missing"))
        if stage.gates != "closed":
            losses = self.gates.add_budget(losses, auxiliaries, stage, self._progress(stage))
        if self.rehearsal is not None and said is not None:
            losses["rehearsal"] = self.rehearsal.loss(logits, said, label, batch.get("marks"))
            losses["total"] = losses["total"] + self.rehearsal.weight * losses["rehearsal"]
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        if not torch.isfinite(norm):  # gradients are averaged over all processes, so all see the same
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

    def start_with(self, weights: dict[str, Tensor]) -> None:
        """Begin with these weights of the very network."""
        self.network.load_state_dict(weights)
        self.ema.module.load_state_dict(weights)

    def save_checkpoint(self) -> None:
        """Write everything that decides the future of the run; the old checkpoint stays until the new one is whole."""
        state = {
            "fingerprint": fingerprint(self.config),
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict()["state"],  # all else follows from the configuration
            "gates": self.gates.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "rows": json.dumps(self.rows),
            "unreadable": self.unreadable,
            "best_dice": self.best[0],
            "best": self.best[1],
        }
        save_checkpoint(self.run_folder, state, self.rows)

    def resume(self) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            ConfigError: the checkpoint belongs to another configuration.
            OutputError: it cannot be read.
        """
        state = load_checkpoint(self.run_folder)
        if state.get("fingerprint") != fingerprint(self.config):
            raise ConfigError(
                f"The checkpoint in {self.run_folder} was made with another configuration.",
                "Continuing would mix two recipes.",
                "Use the configuration it was started with, or another output folder.",
            )
        try:
            self._continue(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise damaged(self.run_folder / CHECKPOINT, error) from error

    def _continue(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's state. Raises one of the errors that `resume` expects where it does not fit."""
        moments, best = dict(state["optimiser"]), dict(state["best"])
        parameters = [each for group in self.optimiser.param_groups for each in group["params"]]
        for number, values in moments.items():
            like = {"step": torch.tensor(0.0), "exp_avg": parameters[number], "exp_avg_sq": parameters[number]}
            check_alike(values, like)
        check_alike(state["network"], self.network.state_dict())
        check_alike(state["ema"], self.ema.state_dict())
        if best:
            check_alike(best, self.ema.module.state_dict())
        epoch, step = int(state["epoch"]), int(state["step"])
        if not 0 <= epoch <= self.config.epochs or step < 0:
            raise ValueError(f"epoch {epoch}, step {step}")
        rows = json.loads(state["rows"])
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.gates.load_state_dict(state["gates"])
        self.epoch, self.step, self.rows = epoch, step, rows
        self.unreadable.update(state["unreadable"])
        self.best = (float(state["best_dice"]), best)
