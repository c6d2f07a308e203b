"""The training loop: stages, one cosine each, averages of the weights, checkpoints that resume exactly, selection."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ..bundles import Bundle
from ..errors import ConfigError
from ..networks import build_network
from .average import Average
from .batches import AugmentedCases, Batch, Draws, ahead
from .cases import PreparedCases
from .checkpoint import CHECKPOINT, check_alike, damaged, load_checkpoint, save_checkpoint
from .clock import Clock, WorkClock
from .config import Stage, TrainingConfig
from .counted import Counted
from .gates import READY, GateTraining, Thresholds
from .losses import APFormerLoss
from .parallel import Processes
from .rehearsal import Rehearsal
from .schedule import Moment, Schedule
from .selection import Selection, mean_of
from .start import load_base
from .validation import Judged, Validation

Row = dict[str, Any]
TAIL = 0.9  # of the training, after which weights go into an average of their own
NOWHERE = Moment(0, 0.0, 0.0, 0.0)


def seed_everything(seed: int) -> None:
    """Python, numpy and torch; augmentation seeds itself per batch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fingerprint(config: TrainingConfig) -> str:
    """Identifies what decides the weights, so that a checkpoint is only ever resumed under its own recipe."""
    pruning = config.pruning and replace(config.pruning, energy=0.0, final_keep=None)  # applied to trained weights
    recipe = replace(config, pruning=pruning, version="", description="", card={}, file="")
    return hashlib.sha256(repr(asdict(recipe)).encode()).hexdigest()


def _never() -> None:
    """The default of `check`: nobody asks for an end."""


class Trainer:
    """Trains one network.

    Args:
        config: the whole recipe.
        training, validation: prepared cases (built; further training cases may come while it trains).
        run_folder: checkpoint and log go here.
        device: where to compute.
        workers: data-loader processes; 0 = a thread of this process.
        on_epoch: called with each row of the log: there is one for every stretch of the schedule.
        schedule: decides what happens when; by default, stages are whole passes over the cases.
        rehearsal: what keeps the skills of the base alive, if anything.
        thresholds: sets what hard gates prune, of the network and of its average, and tells when gates that wait may
            become hard.
        check: called before every step and every validation image; stops the training by raising.
        processes: all processes of this training; by default this one alone.
        judged: names of the labels that the cases label; by default all. Of these, those that a validation case has
            decide; where none has any, the last weights are taken.
        clock: seconds of work, for the log.
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
        schedule: Schedule | None = None,
        rehearsal: Rehearsal | None = None,
        thresholds: Thresholds | None = None,
        check: Callable[[], None] = _never,
        processes: Processes | None = None,
        judged: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        seed_everything(config.seed)
        self.config, self.training = config, training
        self.run_folder, self.device, self.workers, self.on_epoch = run_folder, device, workers, on_epoch
        self.schedule: Schedule = schedule or Counted.by_epochs(config, len(training))
        self.rehearsal, self.check = rehearsal, check
        self.processes, self.clock = processes or Processes(), clock or WorkClock()
        self.judged = [label.name for label in config.labels if not judged or label.name in judged]
        self.validation = Validation(validation, config, device)
        layout = torch.channels_last if config.preprocessing.spatial_dims == 2 else torch.channels_last_3d
        network = build_network(config.network, config.network_arguments)
        if self.processes.size > 1 and device.type == "cuda":  # gloo on CPUs has no such layer
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        # Channels last: convolutions about 10 % faster. torch's type stubs leave memory_format out.
        self.network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.joined = self.network  # the same, averaging gradients over all processes
        self.ema = Average(self.network)
        self.tail: Average | None = None  # of the last tenth; there from its beginning on
        self.loss = APFormerLoss(config.losses)
        self.gates = GateTraining(self.network, config, thresholds)
        self.optimiser = torch.optim.AdamW(
            self.gates.parameter_groups(), lr=1.0, weight_decay=config.weight_decay, fused=can_fuse(device)
        )
        self.epoch = 0  # how many rows the log has
        self.step = 0  # how many steps were taken in all
        self.place = 0  # how many items were drawn in all
        self.closed = False  # whether all is done, the average of the last tenth included
        self.skipped = 0  # steps of this stretch whose gradient was not finite
        self.unreadable: dict[str, str] = {}  # cases that could not be read while training, and why
        self.rows: list[Row] = []
        self._began = self.clock()
        self.selection = Selection(len({case.patient for case in validation.cases}))

    # ------------------------------------------------------------------ the whole

    def run(self) -> dict[str, Tensor]:
        """Train to the end and return the selected weights: the best moment of their average in the last stage, or the
        average of the last tenth; see `selection`."""
        while (number := self._first_says(self.schedule.coming)) is not None:
            began, stage = self.clock(), self.config.stages[number]
            row: Row = {"epoch": self.epoch + 1, "size": list(stage.size)}
            row |= self._stretch(stage)
            row["train_seconds"] = round(self.clock() - began - row.get("settle_seconds", 0.0), 3)
            self.epoch += 1
            if self._first_says(self.schedule.validates):
                with self.schedule.validation() as seconds:
                    judged = self._validate(self.ema, stage, seconds)
                row |= {"dice": judged.dice, "validation_loss": judged.loss}
                self._select(judged, self.ema, number)
            row["seconds"] = round(self.clock() - began, 3)
            self.rows.append(row)
            if self.processes.is_first:
                self.save_checkpoint()
                self.on_epoch(row)
            self.processes.wait()
        if not self.closed:
            self._try_tail()
            self.closed = True
            if self.processes.is_first:
                self.save_checkpoint()
        return self.selection.weights

    def _first_says(self, question: Callable[[], Any]) -> Any:
        """The first process's answer: clocks differ, and all have to do the same."""
        return self.processes.from_first(question() if self.processes.is_first else None)

    def _stretch(self, stage: Stage) -> Row:
        """Steps until the schedule ends the stretch; what they tell on average."""
        means = self._enter(stage)
        # Dropout: a resumed run continues identically, and no two processes drop the same.
        torch.manual_seed(self.config.seed * 104_729 + self.step * self.processes.size + self.processes.rank)
        self.skipped = 0
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        rate, share, steps = 0.0, 0.0, 0
        with closing(self._batches(stage)) as batches:
            while (moment := self._first_says(self.schedule.step)) is not None:
                self.check()
                self.training.raise_failure()
                rate, share = self.learning_rate(moment), moment.share
                for name, value in self.train_step(stage, next(batches), rate, moment).items():
                    sums[name] = sums.get(name, 0.0) + value
                    counts[name] = counts.get(name, 0) + 1
                self._follow(moment)
                self.step, steps = self.step + 1, steps + 1
                self.schedule.stepped()
        means |= {"steps": steps, "step": self.step, "share": round(share, 4), "learning_rate": rate}
        means |= {f"loss_{name}": round(sums[name] / counts[name], 5) for name in sums}
        return means | ({"skipped_steps": self.skipped} if self.skipped else {})

    def _enter(self, stage: Stage) -> Row:
        """Make the network ready for a stretch of the stage."""
        for name, parameter in self.network.named_parameters():
            if ".position." in name:
                parameter.requires_grad_(stage.learn_position)
        began, share = self.clock(), self.rows[-1]["share"] if self.rows else 0.0
        looks = stage.gates == READY and not self.gates.opened
        if looks and self._first_says(lambda: self.gates.opens(stage, share)):
            self.gates.opened = True
            self.schedule.changed()
            self.selection = Selection(self.selection.patients)  # of what was judged dense, nothing tells how it prunes
        settled = self.gates.settle((self.network, self.ema.module), stage, share)
        self.gates.enter(stage)
        self._learn()
        self.joined = self.processes.joined(self.network, self.device)
        row: Row = {"gates": self.gates.phase(stage)}
        if looks or settled:
            row["settle_seconds"] = round(self.clock() - began, 3)  # tells nothing of how long steps take
        return row

    def _learn(self) -> None:
        """Every layer learns; batch norms go on with the statistics that they have, where these are kept."""
        self.network.train()
        if self.config.keep_statistics:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _batches(self, stage: Stage) -> Generator[Batch, None, None]:
        dataset = AugmentedCases(
            self.training, stage, self.config.augmentation, self.config.seed, self.processes.share_of
        )
        dataset.unreadable = self.unreadable
        drawn = Draws(self.training.__len__, self.config.seed * 7919).batches(self.place, stage.batch_size)
        if self.workers:
            pinned = self.device.type == "cuda"
            made: Any = DataLoader(dataset, batch_size=None, sampler=drawn, num_workers=self.workers, pin_memory=pinned)
        else:
            made = ahead(map(dataset.__getitem__, drawn))
        for batch in made:
            self.place += min(stage.batch_size, len(self.training))
            yield batch

    # ------------------------------------------------------------------ one step

    def learning_rate(self, moment: Moment) -> float:
        """Cosine within the stage from its learning rate to its final one, after one warm-up at the very start."""
        stage = self.config.stages[moment.stage]
        warmup = min(1.0, (moment.share + 1e-3) / max(1e-3, self.config.warmup_fraction))
        cosine = 0.5 * (1 + math.cos(math.pi * moment.within))
        return warmup * (stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * cosine)

    def train_step(self, stage: Stage, batch: Batch, rate: float, moment: Moment = NOWHERE) -> dict[str, float]:
        """One optimiser step on one batch; the losses by name, none when the step was skipped.

        Everything that a step needs is in its arguments and in the network, so that another loop, such as that of a
        federated client, can drive it.
        """
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        losses = self._losses(stage, batch, moment)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        if not torch.isfinite(norm):  # gradients are averaged over all processes, so all see the same
            self.skipped += 1  # one bad batch must not ruin the weights; the log tells how many there were
            return {}
        self.optimiser.step()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, stage: Stage, batch: Batch, moment: Moment) -> dict[str, Tensor]:
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
        open_ones = batch.get("marks"), batch.get("missing")
        losses = self.loss(logits, auxiliaries, label, ssa_layer, *open_ones, moment.share)
        if self.gates.phase(stage) != "closed":
            losses = self.gates.add_budget(losses, auxiliaries, stage, moment.within)
        if self.rehearsal is not None and said is not None:
            losses["rehearsal"] = self.rehearsal.loss(logits, said, label, batch.get("marks"))
            losses["total"] = losses["total"] + self.rehearsal.weight * losses["rehearsal"]
        return losses

    def _follow(self, moment: Moment) -> None:
        """Let the averages follow the weights."""
        if self.config.ema_reach:
            self.ema.follow(self.network, moment.passed, self.config.ema_reach)
        else:
            self.ema.update(self.network, 1.0 - self.config.ema_decay)
        if moment.share >= TAIL and moment.stage == len(self.config.stages) - 1:
            self.tail = self.tail or Average(self.network)
            self.tail.add(self.network)

    # ------------------------------------------------------------------ what is kept

    def _validate(self, average: Average, stage: Stage, seconds: float | None = None) -> Judged:
        """What the first process finds for all; None as Dice for what no case has."""
        self.gates.prepare_validation(average.module, stage)
        found = Judged({}, 0.0, 0)
        if self.processes.is_first:
            shown = None if stage is self.config.stages[-1] else stage  # in the end it is judged as it will be used
            found = self.validation(average.module, self.check, seconds, self.clock, shown)
            found = replace(found, dice={name: found.dice[name] for name in self.judged})
        return self.processes.from_first(found)

    def _select(self, judged: Judged, average: Average, stage: int) -> None:
        """Keep these weights if they are the best of the last stage (earlier stages saw other image sizes), or the
        last where nothing judges them."""
        if stage == len(self.config.stages) - 1 and self.selection.offers(judged.dice, judged.loss):
            self.selection.keep(average.weights())

    def _try_tail(self) -> None:
        """The average of the last tenth is a candidate too; the choice, where nothing is validated."""
        if self.tail is None:
            return
        if not any("dice" in row for row in self.rows):
            self.selection.keep(self.tail.weights())
            return
        with self.schedule.validation() as seconds:
            judged = self._validate(self.tail, self.config.stages[-1], seconds)
        self.rows[-1] |= {"tail_dice": mean_of(judged.dice), "tail_loss": judged.loss}
        if mean_of(judged.dice) is not None:
            self._select(judged, self.tail, len(self.config.stages) - 1)

    def dice_of(self, weights: dict[str, Tensor]) -> float:
        """Mean Dice of other weights of this network, once training is over; by what `run` selects by."""
        self.ema.begin(weights)
        return mean_of(self._validate(self.ema, self.config.stages[-1]).dice) or 0.0

    @property
    def seconds(self) -> float:
        """Of work in this training until now, by all processes that went on with it."""
        return self.clock() - self._began

    @property
    def is_judged(self) -> bool:
        """Whether a validation case has any of the labels, as found out by the validations until now."""
        return any(mean_of(row["dice"]) is not None for row in self.rows if "dice" in row)

    # ------------------------------------------------------------------ beginning and going on

    def start_from(self, base: Bundle) -> None:
        """Take over the weights of a trained model, before the first epoch.

        Raises:
            ConfigError: it does not fit the configuration.
        """
        load_base(self.network, base, self.config)
        self.ema.begin(self.network.state_dict())

    def start_with(self, weights: dict[str, Tensor]) -> None:
        """Begin with these weights of the very network."""
        self.network.load_state_dict(weights)
        self.ema.begin(weights)

    def save_checkpoint(self) -> None:
        """Write everything that decides the future of the run; the old checkpoint stays until the new one is whole."""
        state = {
            "fingerprint": fingerprint(self.config),
            "network": self.network.state_dict(),
            "ema": _kept(self.ema),
            "tail": None if self.tail is None else _kept(self.tail),
            "optimiser": self.optimiser.state_dict()["state"],  # all else follows from the configuration
            "gates": self.gates.state_dict(),
            "schedule": self.schedule.state(),
            "epoch": self.epoch,
            "step": self.step,
            "place": self.place,
            "seconds": self.seconds,
            "closed": self.closed,
            "rows": json.dumps(self.rows),
            "unreadable": self.unreadable,
            "windows": self.validation.limit,
            "selection": vars(self.selection),
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
        moments, selected = dict(state["optimiser"]), Selection(**state["selection"])
        parameters = [each for group in self.optimiser.param_groups for each in group["params"]]
        for number, values in moments.items():
            like = {"step": torch.tensor(0.0), "exp_avg": parameters[number], "exp_avg_sq": parameters[number]}
            check_alike(values, like)
        expected = self.network.state_dict()
        averages = [state["ema"], *([] if state["tail"] is None else [state["tail"]])]
        for weights in (state["network"], *(each["weights"] for each in averages)):
            check_alike(weights, expected)
        if selected.weights:
            check_alike(selected.weights, expected)
        epoch, step, place = (int(state[name]) for name in ("epoch", "step", "place"))
        if min(epoch, step, place) < 0:
            raise ValueError(f"epoch {epoch}, step {step}, place {place}")
        rows = json.loads(state["rows"])
        self._began = self.clock() - float(state["seconds"])
        self.schedule.restore(state["schedule"])
        self.network.load_state_dict(state["network"])
        self.ema = _restored(self.ema, state["ema"])
        self.tail = None if state["tail"] is None else _restored(Average(self.network), state["tail"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.gates.load_state_dict(state["gates"])
        self.epoch, self.step, self.place, self.rows = epoch, step, place, rows
        self.closed = bool(state["closed"])
        self.unreadable.update(state["unreadable"])
        self.validation.limit = None if state["windows"] is None else int(state["windows"])
        self.selection = selected


def can_fuse(device: torch.device) -> bool:
    """Whether AdamW can update all weights in one pass."""
    return device.type in ("cpu", "cuda")


def _kept(average: Average) -> dict[str, Any]:
    return {"weights": average.module.state_dict(), "count": average.count}


def _restored(average: Average, kept: dict[str, Any]) -> Average:
    average.begin(kept["weights"])
    average.count = int(kept["count"])
    return average
