"""Before a fine-tuning: what it would train on, what memory, disk and time it needs, and a yes or no with the reason.

What is not known is measured: one case is prepared, and a few training steps are taken on noise.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..bundles import Bundle
from ..commands.finetune_check import Checked
from ..commands.segment import describe_model
from ..datasets import COMPLETED, Problem, SiteCase
from ..errors import ConfigError
from ..finetuning.cases import SiteReader, as_case
from ..finetuning.design import Design, design
from ..finetuning.folder import PLAN, TRAININGS, unfinished
from ..finetuning.form import choose_form
from ..finetuning.labels import LabelPlan
from ..finetuning.recipe import BATCH
from ..finetuning.request import Request
from ..finetuning.rounds import VALIDATIONS
from ..finetuning.session import CLOSING_SECONDS, CLOSING_SHARE, MEASURING_MARGIN
from ..finetuning.setup import refuse_lost, refuse_unfit
from ..finetuning.timing import FEWEST_STEPS_IN_ALL, FORWARD_SHARE, check_time
from ..finetuning.window import window_problems
from ..inference.devices import describe, free_memory
from ..inference.doubt import prunes
from ..networks import build_network
from ..training.cases import prepare
from ..training.config import LossWeights
from ..training.losses import APFormerLoss
from .footprint import Footprint, measure
from .training_work import Extent, Work
from .verdict import SLOWEST, Free, Verdict, free_disk, free_places, needed_places

CHECKPOINT_COPIES = 6  # of the weights: network, average, the last tenth's, best, and two moments of the optimiser
EXTRA_DISK = 50 << 20  # bytes for pictures, logs and the report
_FLOAT = 4  # bytes


def estimate_finetune(
    checked: Checked,
    device: torch.device,
    *,
    check: Callable[[], None] = lambda: None,
    free: Free = free_memory,
    free_on_disk: Callable[[Path], int] = free_disk,
) -> Verdict:
    """What a fine-tuning would take; nothing is written.

    Args:
        checked: the request beside its data set and base, without a problem that blocks.
        check: called between the parts of the measurement.
        free: bytes that are free on a device. free_on_disk: on the disk of a folder.

    Raises:
        ConfigError: the labels, the budget or the split cannot be; an unfinished training is in the way; too little
            time.
        InputError: a case cannot be read.
    """
    request, dataset = checked.request, checked.dataset
    folder = dataset.root / TRAININGS / request.name
    used = _seconds_used(folder, request)
    plan, sites = checked.plan(), dataset.cases(COMPLETED)
    source: Bundle | Design = checked.base or design(sites, list(plan.site_values), check, request.network, plan.sided)
    refuse_unfit(source, sites, "Choose a base for such images, or keep these cases in a data set of their own.")
    refuse_lost(source, sites, plan)
    unseen = window_problems(checked.base, sites, plan, check)
    check()
    free_bytes = {**free_places(device, free), "disk": free_on_disk(dataset.root)}
    reader = SiteReader.of(sites, plan)
    extents = {site.name: _extent(site, source, plan, reader) for site in sites}
    work = Work.of(sites, dataset.planned_split(), extents)
    preparing = _preparing_seconds(work, reader, source)
    check()
    step = TrainingStep.build(checked, source, plan)
    with _threads(request.threads):
        footprint, place = step.measured(device, check), describe(device)
    models = 1 if plan.remembered(checked.base) is None else 2
    pace = Pace(footprint, preparing, work, BATCH[source.preprocessing.spatial_dims], models)
    steps = pace.steps(request)
    memory = max(footprint.peak_bytes + step.held_bytes, max(e.memory_bytes for e in extents.values()))
    disk = work.total("prepared_bytes", work.cases) + len(work.trainings) * CHECKPOINT_COPIES * step.weight_bytes
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())  # of the training to continue
    return Verdict(
        place,
        needed_places(device, memory, 0) | {"disk": max(0, disk + EXTRA_DISK - there)},
        free_bytes,
        pace.seconds(request, used),
        {**work.counts(), "batch": pace.batch, "steps_at_least": steps[0], "steps_at_most": steps[1]},
        about=_about(checked, source, plan, work, unseen),
    )


def _seconds_used(folder: Path, request: Request) -> float:
    """Of the unfinished training that is to be continued; 0 for a new one.

    Raises:
        ConfigError: there is none to continue, or one that was not to be continued.
    """
    if request.resume:
        return float(unfinished(request.dataset, request.name).plan["used"])
    if (folder / PLAN).exists():
        raise ConfigError(
            f"A training of {request.name} was started in {request.dataset} and is not finished.",
            "Starting it anew would lose what it has learned.",
            f"Continue it, choose another name, or delete {folder}.",
        )
    return 0.0


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """As many as the training would have; see `Request.threads`."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _extent(site: SiteCase, source: Bundle | Design, plan: LabelPlan, reader: SiteReader) -> Extent:
    maps = 2 if reader.marked else 1
    return Extent.of(site, source.preprocessing, source.channels, len(plan.labels) + 1, maps)


def _preparing_seconds(work: Work, reader: SiteReader, source: Bundle | Design) -> float:
    """For all cases, from one of middling size; the files of the others are as fast to read per voxel."""
    ordered = sorted(work.cases, key=lambda site: work.extents[site.name].stored)
    middle = ordered[len(ordered) // 2]
    started = time.perf_counter()
    image, label, marks = reader(as_case(middle, reader.plan))
    prepare(image, label, source.preprocessing, marks)
    seconds = time.perf_counter() - started
    return seconds * work.total("stored", ordered) / work.extents[middle.name].stored


@dataclass
class TrainingStep:
    """The network to train, and the base that is rehearsed beside it, if any."""

    network: nn.Module
    teacher: nn.Module | None
    shape: tuple[int, ...]  # of a batch
    classes: int

    @classmethod
    def build(cls, checked: Checked, source: Bundle | Design, plan: LabelPlan) -> TrainingStep:
        request, base, settings = checked.request, plan.remembered(checked.base), source.preprocessing
        form = choose_form(source, plan, request.budget)
        network = build_network(form.network, form.arguments)
        teacher = base.build_network() if base is not None and request.rehearsal else None
        shape = (BATCH[settings.spatial_dims], source.channels, *settings.patch_size)
        return cls(network, teacher, shape, len(plan.labels) + 1)

    @property
    def weight_bytes(self) -> int:
        return _FLOAT * sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def held_bytes(self) -> int:
        """Of all weights in memory: the network's, their two averages, the teacher's."""
        teacher = () if self.teacher is None else self.teacher.parameters()
        return 3 * self.weight_bytes + _FLOAT * sum(parameter.numel() for parameter in teacher)

    def measured(self, device: torch.device, check: Callable[[], None]) -> Footprint:
        """What a training step takes, without pruning, on a batch of noise: with SSA, which is costly, and without."""
        network = self.network.to(device).train()
        teacher = None if self.teacher is None else self.teacher.to(device).eval()
        for each in (network, teacher):
            if each is not None and prunes(each):
                each.gating = "off"  # type: ignore[assignment]
        source = torch.Generator().manual_seed(0)
        image = torch.randn(self.shape, generator=source).to(device)
        target = torch.randint(self.classes, (self.shape[0], 1, *self.shape[2:]), generator=source).to(device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
        loss = APFormerLoss(LossWeights())
        ssa_layers = itertools.cycle((0, None))

        def work() -> None:
            check()
            optimiser.zero_grad(set_to_none=True)
            if teacher is not None:
                with torch.no_grad():
                    teacher(image)
            loss(*network(image, auxiliaries=True), target, next(ssa_layers))["total"].backward()
            optimiser.step()

        return measure(work, device)


@dataclass(frozen=True)
class Pace:
    """What takes how long.

    Attributes:
        preparing: seconds, for all cases. measured: how many models are measured on the validation cases.
    """

    footprint: Footprint
    preparing: float
    work: Work
    batch: int
    measured: int

    def steps(self, request: Request) -> tuple[int, int]:
        """Fewest and most training steps, all trainings together.

        Raises:
            ConfigError: the time of a new training is too short for any to be of use.
        """
        if request.steps is not None:
            steps = request.steps * len(self.work.trainings)
            return steps, steps
        fast, slow = min(self.footprint.seconds), SLOWEST * max(self.footprint.seconds)
        each = (request.seconds - self._besides(fast, request.seconds)) / len(self.work.trainings)
        if not request.resume:
            check_time(each, fast)
        least = (request.seconds - self._besides(slow, request.seconds)) / slow
        return max(0, int(least)), max(FEWEST_STEPS_IN_ALL, int(each * len(self.work.trainings) / fast))

    def seconds(self, request: Request, used: float) -> tuple[float, float]:
        """Lowest and highest expected; `used` of them are over already."""
        if request.steps is None:
            left = max(0.0, request.seconds - used)
            return left, left + max(self.footprint.seconds)
        items = VALIDATIONS * self.work.total("items", self.work.judging)
        low, high = (
            self._besides(step, 0.0) + step * (self.steps(request)[0] + FORWARD_SHARE * items / self.batch)
            for step in (min(self.footprint.seconds), SLOWEST * max(self.footprint.seconds))
        )
        return max(0.0, low - used), max(0.0, high - used)

    def _besides(self, step: float, given: float) -> float:
        """Seconds of what is not training: preparing cases, measuring models, pictures and the report."""
        tiles = self.measured * self.work.total("tiles", self.work.judging)
        measuring = MEASURING_MARGIN * tiles * FORWARD_SHARE * step / self.batch
        return self.preparing + measuring + CLOSING_SECONDS + CLOSING_SHARE * given


def _about(
    checked: Checked, source: Bundle | Design, plan: LabelPlan, work: Work, more: Sequence[Problem]
) -> dict[str, Any]:
    settings, base = source.preprocessing, checked.base
    names = ", ".join(plan.judged.values())
    begin = "from scratch" if base is None else f"from {base.name} {base.version}"
    if base is not None and plan.remembered(base) is None:
        begin = f"with the weights of {base.name} {base.version}, of other structures,"
    return {
        "work": f"It trains {names} {begin} on {work.in_words()}.",
        "base": None if base is None else describe_model(base),
        "labels": plan.describe(),
        "problems": [problem.as_dict() for problem in (*checked.problems, *more)],
        "network": {
            "name": source.network_name if isinstance(source, Bundle) else source.network,
            "spatial_dims": settings.spatial_dims,
            "patch_size": list(settings.patch_size),
            "spacing_mm": None if settings.spacing_mm is None else list(settings.spacing_mm),
        },
    }
