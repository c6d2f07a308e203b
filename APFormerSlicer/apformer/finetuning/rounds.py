"""One training of a fine-tuning: a fold of a cross-validation, the single split, or the final one on all cases."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bundles.preprocessing import ACQUIRED, Preprocessing
from ..errors import InputError
from ..networks import build_network
from ..networks.slimmed import slimmed_arguments
from ..pruning.budget import Budget
from ..training.augment import fit
from ..training.calibration import FEW_IMAGES, IMAGES, Calibration
from ..training.cases import Case, PreparedCases
from ..training.checkpoint import has_checkpoint
from ..training.clock import Clock
from ..training.config import TrainingConfig
from ..training.counted import Counted
from ..training.loop import Row, Trainer
from ..training.parallel import Processes
from ..training.pruned import compacted
from ..training.rehearsal import Rehearsal
from ..training.report import shown
from ..training.schedule import Schedule
from ..training.selection import mean_of
from ..training.timed import Costs, Timed
from .blend import SHARES, blended, choose_share
from .events import Teller
from .form import GATES, SLICES, Form
from .heads import class_dependent, gate_parameters, grown_weights
from .pictures import draw_overlay
from .recipe import PHASE_NAMES, write_recipe
from .setup import Setup
from .slicing import examples, sliced
from .timing import StepTimer, check_time, least_seconds
from .unfound import Watch

FEWEST_STEPS_APART = 3  # between two validations of a training by steps, and ...
VALIDATIONS = 10  # ... about so many in all
FINAL_VALIDATIONS = 2  # of the average of the weights, and of the last tenth's
OVERLAYS = 2
OVERLAY_EVERY = 2  # validations
SEARCHED_ITEMS = 400  # among which the slices to show are chosen


@dataclass(frozen=True)
class Place:
    """Which training this is: number `fold` (from 1) of `folds`; without `judged`, the final one on all cases."""

    name: str
    fold: int
    folds: int
    judged: bool = True


@dataclass(frozen=True)
class Allowance:
    """The time of a training: seconds until all that follows it is done; how many of them that takes."""

    seconds: float
    after: float


@dataclass(frozen=True)
class Trained:
    """What a training gave: the recipe after pruning, weights, log rows, and the cases that could not be read.

    blend: how far the weights are on the way from the base, {"share", "dice": mean Dice by share}; None without
        rehearsal, and from a base of other structures.
    """

    config: TrainingConfig
    weights: dict[str, Tensor]
    rows: list[Row]
    unreadable: dict[str, str]
    blend: dict[str, Any] | None


class Round:
    """One training.

    Args:
        prepared: (training, validation) cases, built.
        folder: its own; checkpoints, log and overlays.
        processes: all that train together. clock: seconds of work.
    """

    def __init__(
        self,
        setup: Setup,
        prepared: tuple[PreparedCases, PreparedCases],
        folder: Path,
        place: Place,
        teller: Teller,
        check: Callable[[], None],
        processes: Processes,
        clock: Clock,
    ) -> None:
        self.setup, self.folder, self.place = setup, folder, place
        self.training, self.validation = prepared
        self.teller, self.check, self.processes, self.clock = teller, check, processes, clock
        self.form = setup.form  # until it is cut
        self.start: dict[str, Tensor] | None = None
        self.shown: list[tuple[int, int]] = []
        self.unreadable: dict[str, str] = {}
        self.watch = Watch(teller.say)
        self._calibration: Calibration | None = None

    def plan(self, allowed: Callable[[], Allowance | None]) -> dict[str, Any]:
        """How long it is trained, and what a step takes, as plain data for `run`.

        Args:
            allowed: tells the time for this training; asked after steps have been timed.

        Raises:
            ConfigError: too little time.
        """
        self._begin()
        self._calibrate()
        form = json.loads(json.dumps(asdict(self.form)))  # as it is read back
        settled = {"form": form, "precision": "float32", "time": None, "counted": False}
        if self.setup.request.steps is not None:
            return settled
        network = build_network(self.form.network, self.form.arguments)
        if self.start is not None:
            network.load_state_dict(self.start)
        setup, stages = self.setup, self._recipe("float32").stages
        timer = StepTimer(network, setup.source.channels, setup.device, self.rehearses, self.check, self.clock)
        steps, precision = timer.measure(stages)
        given = allowed()
        assert given is not None
        closing = self._closing()
        settling = self._settling(network)
        costs = Costs(steps, given.after + settling, closing)
        shares = self._recipe("float32").shares
        average = sum(share * seconds for share, seconds in zip(shares, costs.steps, strict=True))
        seconds = given.seconds
        if self.place.fold > 1:  # a few steps too many cost less than all the folds before
            seconds = max(seconds, costs.after + least_seconds(average))
        check_time(seconds - costs.after, average, self.place.folds - self.place.fold + 1)
        return {**settled, "precision": precision, "time": {"seconds": seconds, "costs": asdict(costs)}}

    def _closing(self) -> int:
        """Validations that follow the last step."""
        if not self.place.judged:
            return 0
        return FINAL_VALIDATIONS + (len(SHARES) if self.rehearses else 0)

    def _settling(self, network: nn.Module) -> float:
        """Seconds in which thresholds are set for what `blend` tries, by few images, and for what is chosen, by more;
        it is tried with `network`."""
        if (calibration := self._calibrate()) is None:
            return 0.0
        began = self.clock()
        calibration.set_threshold(network.to(self.setup.device))
        images = min(FEW_IMAGES, len(self.training))
        tried = len(SHARES) if self.rehearses and self.place.judged else 0
        return (self.clock() - began) * (tried + IMAGES / images)

    def run(self, settled: dict[str, Any], version: str) -> Trained:
        """Train as settled, or go on with the training whose checkpoint is in the folder."""
        if self.processes.is_first:
            self._begin()
        self.form, self.start = Form(**settled["form"]), self.processes.from_first(self.start)
        config = self._recipe(settled["precision"], version)
        trainer = Trainer(
            config,
            self.training,
            self.validation,
            self.folder,
            self.setup.device,
            workers=0,
            on_epoch=lambda row: self._tell(trainer, row),
            schedule=self._schedule(config, settled["time"]),
            rehearsal=self._rehearsal(),
            thresholds=self._calibrate(),
            check=self.check,
            processes=self.processes,
            judged=self.setup.plan.judged.values(),
            clock=self.clock,
        )
        self.unreadable = trainer.unreadable
        if has_checkpoint(self.folder):
            trainer.resume()
            if not settled["counted"]:
                self.teller.resumed(trainer.seconds)
                self.teller.say(f"Continuing after step {trainer.step}.")
        elif self.start is not None:
            trainer.start_with(self.start)
        learned = trainer.run()
        self.training.finish()
        blend = settled.get("blend") or self._blend(trainer, learned)
        weights = self._on_the_way(learned, 1.0 if blend is None else blend["share"], IMAGES)
        config, weights = compacted(config, weights, self._readable())
        return Trained(config, weights, trainer.rows, trainer.unreadable, blend)

    def _schedule(self, config: TrainingConfig, given: dict[str, Any] | None) -> Schedule:
        if given is None:
            steps = self.setup.request.steps
            assert steps is not None
            apart = max(FEWEST_STEPS_APART, -(-steps // VALIDATIONS))
            return Counted.by_steps(config.shares, steps, apart, validates=self.place.judged)
        costs = given["costs"]
        known = Costs(tuple(costs["steps"]), costs["after"], costs["closing"])
        return Timed(given["seconds"], config.shares, known, self.clock)

    @property
    def rehearses(self) -> bool:
        """Whether what the base knows is looked after."""
        return self.setup.remembered is not None and self.setup.request.rehearsal

    def _blend(self, trainer: Trainer, learned: dict[str, Tensor]) -> dict[str, Any] | None:
        """Where between the base and what was learned the new model is; see `blend`. None where nothing judges it."""
        if not self.rehearses or not trainer.is_judged:
            return None
        patients = len({case.patient for case in self.validation.cases})
        share, dice = choose_share(
            trainer.selection.dice, lambda share: trainer.dice_of(self._on_the_way(learned, share)), patients
        )
        return {"share": share, "dice": dice}

    def _on_the_way(self, learned: dict[str, Tensor], share: float, images: int = FEW_IMAGES) -> dict[str, Tensor]:
        """The weights at that share of the way from the base to what was learned, and what they prune, by so many
        images."""
        network = build_network(self.form.network, self.form.arguments)
        if share < 1 and self.start is not None:
            learned = blended(self._known(self.start, learned), learned, share, gate_parameters(network))
        network.load_state_dict(learned)
        if (calibration := self._calibrate()) is not None:
            self.training.finish()
            calibration.set_threshold(network.eval(), images)  # what is pruned changes with the weights
        return network.state_dict()

    def _known(self, start: dict[str, Tensor], learned: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights at the beginning; of new structures the base knows nothing, so theirs are as learned."""
        start = dict(start)
        known = [0, *self.setup.plan.base_channels.values()]
        for output in class_dependent(self.form.network, self.form.arguments):
            rows = learned[output].clone()
            rows[known] = start[output][known]
            start[output] = rows
        return start

    def _readable(self) -> PreparedCases:
        """The training cases, without those that have become unreadable."""
        cases = copy.copy(self.training)
        cases.items = [item for n, item in enumerate(cases.items) if cases.case(n).name not in self.unreadable]
        return cases

    def _recipe(self, precision: str, version: str = "1.0.0") -> TrainingConfig:
        setup = self.setup
        return write_recipe(setup.request, setup.source, setup.plan, self.form, version, setup.licence, precision)

    def _calibrate(self) -> Calibration | None:
        """What sets thresholds to the budget; None where no gates meet one.

        Raises:
            ConfigError: the budget is out of reach.
        """
        budget = self.setup.request.budget
        if budget is None or self.form.budget != GATES:
            return None
        if self._calibration is None:
            shape = (self.setup.source.channels, *self.setup.source.preprocessing.patch_size)
            network, arguments = self.form.network, self.form.arguments
            self._calibration = Calibration.to_budget(self._readable, budget, network, arguments, shape)
        return self._calibration

    def _begin(self) -> None:
        """Find the weights to begin with, once; without a base they are left to chance, which the seed decides.

        What a budget cuts is cut here, on the training cases: a model that is judged saw none of the others.
        """
        setup, form = self.setup, self.setup.form
        if setup.base is None or self.start is not None:
            return
        seed = setup.request.seed
        self.start = grown_weights(setup.base, form.network, form.arguments, setup.plan.base_channels, seed)
        if form.budget == SLICES and setup.request.budget is not None:
            self.teller.training("cutting the network to the budget", (self.place.fold - 1) / self.place.folds)
            network = build_network(form.network, form.arguments)
            network.load_state_dict(self.start)
            sample = torch.zeros(1, setup.source.channels, *setup.source.preprocessing.patch_size)
            budget = Budget.parse(setup.request.budget)
            self.training.finish()
            small = sliced(network.eval(), examples(self.training), sample, budget, self.check)
            # What a search cut before already names the network that it was cut from.
            base = str(form.arguments.get("base", form.network))
            self.form = Form("slimmed", slimmed_arguments(small, base, form.arguments), SLICES)
            self.start = small.state_dict()

    def _rehearsal(self) -> Rehearsal | None:
        setup = self.setup
        if setup.base is None or not self.rehearses:
            return None
        base = setup.base.build_network().to(setup.device)
        return Rehearsal(base, setup.plan.base_channels, setup.plan.unlabelled)

    def _tell(self, trainer: Trainer, row: Row) -> None:
        place = {"fold": self.place.fold, "folds": self.place.folds}
        told = {**row, **place, "phase": PHASE_NAMES[row["gates"]], "overlays": []}
        if not self.place.judged:
            told.pop("dice", None)  # of cases that it was trained on: no figure to show
        elif "dice" in row:
            self.watch.look(row["dice"], row["share"])
            if (sum("dice" in each for each in trainer.rows) - 1) % OVERLAY_EVERY == 0:
                told["overlays"] = self._overlays(trainer.ema.module, row)
        self.teller.epoch(told)
        done = (self.place.fold - 1 + row["share"]) / self.place.folds
        self.teller.training(f"training, {told['phase']}: step {row['step']}", done)

    @torch.inference_mode()
    def _overlays(self, network: nn.Module, row: Row) -> list[str]:
        """PNGs of the same validation slices each time, as the network sees them now."""
        network.eval()
        paths = []
        self.shown = self.shown or _slices_to_show(self.validation)
        for number, (item, k) in enumerate(self.shown, 1):
            image, label = self.validation.item(item)
            shape = tuple(label.shape[1:])
            patch = [max(a, b) for a, b in zip(shape, self.validation.preprocessing.patch_size, strict=True)]
            logits = network(fit(image, patch)[None].to(self.setup.device))[0].float().cpu()
            found = fit(logits.argmax(0)[None].float(), shape)[0]
            flat = found if found.ndim == 2 else found[k]
            picture = image if image.ndim == 3 else image[:, k]
            truth = label[0] if label.ndim == 3 else label[0, k]
            path = self.folder / f"epoch-{row['epoch']:03d}-{number}.png"
            title = f"{self.validation.case(item).name}, step {row['step']}, Dice {shown(mean_of(row['dice']))}"
            seen, drawn, said = (_upright(array, self.validation.preprocessing) for array in (picture, truth, flat))
            draw_overlay(seen, drawn, said.astype(np.uint8), self.setup.plan.labels, path, title)
            paths.append(str(path))
        return paths


def _slices_to_show(cases: PreparedCases) -> list[tuple[int, int]]:
    """(item, slice of a volume) of the `OVERLAYS` slices of different cases that hold most of the labels."""
    best: dict[str, tuple[int, int, int]] = {}  # case -> (voxels, item, slice)
    for item in range(0, len(cases), max(1, len(cases) // SEARCHED_ITEMS)):
        label = cases.item(item)[1][0] > 0
        areas = label.flatten(1).sum(1) if label.ndim == 3 else label.sum()[None]
        k = int(areas.argmax())
        name = cases.case(item).name
        best[name] = max(best.get(name, (0, 0, 0)), (int(areas[k]), item, k))
    return [(item, k) for _, item, k in sorted(best.values(), reverse=True)[:OVERLAYS]]


def _upright(array: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """(..., rows, columns) as pictures are looked at: towards the patient's left and back."""
    flips = [axis for axis, letter in ((-1, "R"), (-2, "A")) if letter in preprocessing.orientation[:2]]
    return np.flip(array.numpy(), tuple(flips)) if preprocessing.orientation != ACQUIRED else array.numpy()


def prepare_cases(
    setup: Setup,
    cases: Sequence[Case],
    folder: Path,
    skipped: dict[str, str],
    check: Callable[[], None],
    first: int | None = None,
) -> PreparedCases:
    """The cases in prepared form, without those in `skipped`; what cannot be read either is left out and named there.

    Args:
        first: see `PreparedCases.build`.

    Raises:
        InputError: none can be read.
    """
    wanted = [case for case in cases if case.name not in skipped]
    prepared = PreparedCases(wanted, folder, setup.source.preprocessing, setup.reader)

    def skip(case: Case, error: InputError) -> None:
        skipped[case.name] = error.what

    prepared.build(progress=lambda done, total: check(), skip=skip, first=first)
    if not prepared.items:
        name, reason = next((case.name, skipped[case.name]) for case in cases if case.name in skipped)
        raise InputError(
            f"None of the {len(cases)} cases can be read; {name}: {reason}",
            "There is nothing to train on, or nothing to judge by.",
            "Check the data set with `apformer dataset check`.",
        )
    return prepared
