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
from ..networks import APFormer, LeanFormer, build_network
from ..networks.slimmed import slimmed_arguments
from ..pruning.budget import Budget
from ..pruning.plugin import PrunedNetwork
from ..training.augment import fit
from ..training.calibration import IMAGES, set_threshold
from ..training.cases import Case, PreparedCases
from ..training.checkpoint import has_checkpoint
from ..training.config import TrainingConfig
from ..training.loop import Row, Trainer, mean_of
from ..training.pace import Timed
from ..training.parallel import Processes
from ..training.pruned import compacted
from ..training.rehearsal import Rehearsal
from ..training.report import shown
from .blend import SHARES, blended, choose_share
from .events import Teller
from .form import GATES, SLICES, Form
from .heads import class_dependent, gate_parameters, grown_weights
from .pictures import draw_overlay
from .recipe import PHASE_NAMES, Effort, write_recipe
from .schedule import StepTimer, least_seconds, plan_effort
from .setup import Setup
from .slicing import examples, sliced

PATIENCE_SHARE = 0.4  # of a training's validations without a better one end a phase
FEWEST_PATIENCE = 5
FOREGROUND_KEPT = 0.998  # of the tokens that hold foreground, whatever the budget
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
class Trained:
    """What a training gave: the recipe after pruning, weights, log rows, and the cases that could not be read.

    blend: how far the weights are on the way from the base, {"share", "dice": mean Dice by share}; None without
        rehearsal.
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
        processes: all that train together.
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
    ) -> None:
        self.setup, self.folder, self.place = setup, folder, place
        self.training, self.validation = prepared
        self.teller, self.check, self.processes = teller, check, processes
        self.form = setup.form  # until it is cut
        self.start: dict[str, Tensor] | None = None
        self.shown: list[tuple[int, int]] = []
        self.unreadable: dict[str, str] = {}

    def plan(self, left: Callable[[float], float | None]) -> dict[str, Any]:
        """How much is trained, and what it was judged by, as plain data for `run`.

        Args:
            left: tells the seconds that are left, given those of a validation; asked after steps have been timed.

        Raises:
            ConfigError: too little time.
        """
        request, cases = self.setup.request, len(self.training)
        self._begin()
        form = json.loads(json.dumps(asdict(self.form)))  # as it is read back
        if request.epochs is not None:
            steps = request.epochs * max(1, cases // 4)
            effort = Effort(request.epochs, steps, max(1, request.epochs // 10), "float32")
            return {"form": form, "seconds": None, "effort": asdict(effort), "guesses": {}, "counted": False}
        network = build_network(self.form.network, self.form.arguments)
        if self.start is not None:
            network.load_state_dict(self.start)
        timer = StepTimer(network, self.setup.source.channels, self.setup.device, self.rehearses, self.check)
        stages = self._recipe(Effort(20, 100, 20, "float32")).stages
        last = stages[-1]
        precision = timer.choose_precision(last)
        guesses = {_key(stage): timer(stage) for stage in stages}
        epochs = sum(stage.epochs for stage in stages)
        step = sum(stage.epochs * guesses[_key(stage)] for stage in stages) / epochs
        forward = timer(last) / last.batch_size / 3  # of an image: a step is about three forward passes
        validation = forward * len(self.validation)
        seconds = left(validation)
        assert seconds is not None
        settling = min(IMAGES, len(self.training)) * forward if self.form.budget == GATES else 0.0
        if self.rehearses and self.place.judged:
            seconds -= len(SHARES) * validation + (len(SHARES) + 1) * settling  # once more at the place that is chosen
        if self.place.fold > 1:  # a few steps too many cost less than all the folds before
            seconds = max(seconds, least_seconds(step))
        shares = self.place.folds - self.place.fold + 1
        effort = plan_effort(seconds, step, validation if self.place.judged else 0.0, precision, shares)
        if not self.place.judged:
            effort = Effort(effort.epochs, effort.steps, effort.epochs, precision)
        guesses |= {"validation": validation, "settling": 2 * settling}  # of the weights, and of their average
        return {"form": form, "seconds": seconds, "effort": asdict(effort), "guesses": guesses, "counted": False}

    def run(self, settled: dict[str, Any], version: str) -> Trained:
        """Train as settled, or go on with the training whose checkpoint is in the folder."""
        if self.processes.is_first:
            self._begin()
        self.form, self.start = Form(**settled["form"]), self.processes.from_first(self.start)
        effort, guesses, seconds = Effort(**settled["effort"]), settled["guesses"], settled["seconds"]
        config = self._recipe(effort, version)
        pace = None
        if seconds is not None:
            validation, settling = guesses["validation"], guesses["settling"]
            pace = Timed(seconds, config.stages, lambda stage: guesses[_key(stage)], validation, settling)
        validations = sum(stage.epochs for stage in config.stages) // effort.validate_every
        trainer = Trainer(
            config,
            self.training,
            self.validation,
            self.folder,
            self.setup.device,
            workers=0,
            on_epoch=lambda row: self._tell(trainer, row),
            pace=pace,
            rehearsal=self._rehearsal(),
            patience=max(FEWEST_PATIENCE, round(PATIENCE_SHARE * validations)) if self.place.judged else 0,
            settle=self._settle,
            check=self.check,
            processes=self.processes,
            judged=self.setup.plan.judged.values(),
        )
        self.unreadable = trainer.unreadable
        if has_checkpoint(self.folder):
            trainer.resume()
            if not settled["counted"]:
                self.teller.resumed(sum(row["seconds"] for row in trainer.rows))
                self.teller.say(f"Continuing after epoch {trainer.epoch} of {config.epochs}.")
        elif self.start is not None:
            trainer.start_with(self.start)
        learned = trainer.run()
        blend = settled.get("blend") or self._blend(trainer, learned)
        weights = learned if blend is None else self._on_the_way(learned, blend["share"])
        config, weights = compacted(config, weights, self._readable())
        return Trained(config, weights, trainer.rows, trainer.unreadable, blend)

    @property
    def rehearses(self) -> bool:
        """Whether what the base knows is looked after."""
        return self.setup.base is not None and self.setup.request.rehearsal

    def _blend(self, trainer: Trainer, learned: dict[str, Tensor]) -> dict[str, Any] | None:
        """Where between the base and what was learned the new model is; see `blend`. None where nothing judges it."""
        if not self.rehearses or not trainer.is_judged:
            return None
        patients = len({case.patient for case in self.validation.cases})
        share, dice = choose_share(
            trainer.best[0], lambda share: trainer.dice_of(self._on_the_way(learned, share)), patients
        )
        return {"share": share, "dice": dice}

    def _on_the_way(self, learned: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        if share == 1 or self.start is None:
            return learned
        name, arguments, start = self.form.network, self.form.arguments, dict(self.start)
        known = [0, *self.setup.plan.base_channels.values()]
        for output in class_dependent(name, arguments):
            rows = learned[output].clone()
            rows[known] = start[output][known]
            start[output] = rows  # of new structures the base knows nothing: they stay as learned
        network = build_network(name, arguments)
        network.load_state_dict(blended(start, learned, share, gate_parameters(network)))
        self._settle(network.eval())  # what is pruned changes with the weights
        return network.state_dict()

    def _readable(self) -> PreparedCases:
        """The training cases, without those that have become unreadable."""
        cases = copy.copy(self.training)
        cases.items = [item for n, item in enumerate(cases.items) if cases.case(n).name not in self.unreadable]
        return cases

    def _recipe(self, effort: Effort, version: str = "1.0.0") -> TrainingConfig:
        setup = self.setup
        return write_recipe(setup.request, setup.source, setup.plan, self.form, version, setup.licence, effort)

    def _settle(self, network: nn.Module) -> None:
        """Set what is pruned to the share that the budget names, but never below what holds the structures."""
        budget = self.setup.request.budget
        if budget is None or not isinstance(network, APFormer | LeanFormer | PrunedNetwork):
            return
        set_threshold(network, self._readable(), Budget.parse(budget).keep, FOREGROUND_KEPT)

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
        place = {"fold": self.place.fold, "folds": self.place.folds, "of": trainer.config.epochs}
        told = {**row, **place, "phase": PHASE_NAMES[row["gates"]], "overlays": []}
        if not self.place.judged:
            told.pop("dice", None)  # of cases that it was trained on: no figure to show
        elif "dice" in row and (sum("dice" in each for each in trainer.rows) - 1) % OVERLAY_EVERY == 0:
            told["overlays"] = self._overlays(trainer.ema.module, row)
        self.teller.epoch(told)
        done = (self.place.fold - 1 + trainer.epoch / trainer.config.epochs) / self.place.folds
        self.teller.training(f"training, {told['phase']}: epoch {row['epoch']} of {trainer.config.epochs}", done)

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
            title = f"{self.validation.case(item).name}, epoch {row['epoch']}, Dice {shown(mean_of(row['dice']))}"
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


def _key(stage: Any) -> str:
    """Names a stage's cost: guesses are kept as JSON."""
    return f"{stage.gates} " + "x".join(map(str, (stage.batch_size, *stage.size)))


def prepare_cases(
    setup: Setup, cases: Sequence[Case], folder: Path, skipped: dict[str, str], check: Callable[[], None]
) -> PreparedCases:
    """The cases in prepared form, without those in `skipped`; what cannot be read either is left out and named there.

    Raises:
        InputError: none can be read.
    """
    wanted = [case for case in cases if case.name not in skipped]
    prepared = PreparedCases(wanted, folder, setup.source.preprocessing, setup.reader)

    def skip(case: Case, error: InputError) -> None:
        skipped[case.name] = error.what

    prepared.build(progress=lambda done, total: check(), skip=skip)
    if not prepared.items:
        name, reason = next((case.name, skipped[case.name]) for case in cases if case.name in skipped)
        raise InputError(
            f"None of the {len(cases)} cases can be read; {name}: {reason}",
            "There is nothing to train on, or nothing to judge by.",
            "Check the data set with `apformer dataset check`.",
        )
    return prepared
