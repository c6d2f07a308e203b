"""A whole fine-tuning: measure the base, adapt, prune, measure again, write a version, decide which one is active."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

import torch

from ..bundles import Bundle, ModelLibrary, load_bundle
from ..datasets import SiteCase
from ..errors import InputError
from ..inference.devices import describe
from ..networks import build_network
from ..training.cases import Case, PreparedCases
from ..training.clock import Clock, WorkClock
from ..training.parallel import Processes
from ..training.run import write_bundle
from .cases import as_case
from .events import Listener, Teller
from .folder import PROBE, TRAININGS, TrainingFolder, training_folder, unfinished
from .measure import Scores, cost_of, measure, probe, summary
from .measured import MEASURED_SHARE, are_enough, as_many, in_turn
from .outcome import WORST_CASES, Findings, Outcome, write_version
from .recipe import PHASE_NAMES, write_recipe
from .request import Request
from .rounds import Allowance, Place, Round, Trained, prepare_cases
from .setup import Setup, beginning, set_up
from .timing import check_beforehand, quick_estimate
from .verdict import judge

# Kept of the time for what comes after the training: measuring (as long as the base took, with a margin), pictures,
# counting operations, writing.
MEASURING_MARGIN = 1.1
CLOSING_SECONDS = 8.0
CLOSING_SHARE = 0.005
FIRST_CASES = 4  # that training by the clock begins with; the others are prepared meanwhile


def _nothing(event: dict[str, Any]) -> None:
    """The default listener."""


def _never() -> None:
    """The default of `check`."""


def _never_enough(done: int) -> bool:
    """Measure all cases."""
    return False


def finetune(
    request: Request,
    *,
    library: ModelLibrary | None = None,
    on_event: Listener = _nothing,
    check: Callable[[], None] = _never,
    clock: Clock | None = None,
) -> Outcome:
    """Fine-tune on a site's cases and write a new version of the model.

    Args:
        library: where the base is found and the new version goes.
        on_event: told what happens, see `events`; in the first process only.
        check: called at least once a second; stops the training by raising. What was learned until the last checkpoint
            stays, and `resume` continues it.
        clock: seconds of work.

    Raises:
        APFormerError: see `set_up`, `training_folder` and `timing`; OutputError when the disk is full: the checkpoint
            before stays.
    """
    processes = Processes.from_environment()
    with _threads(request.threads):
        session = _Session(request, library or ModelLibrary(), on_event, check, processes, clock or WorkClock())
        return session.run()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Session:
    def __init__(
        self,
        request: Request,
        library: ModelLibrary,
        on_event: Listener,
        check: Callable[[], None],
        processes: Processes,
        clock: Clock,
    ) -> None:
        self.request, self.library, self.processes, self.clock = request, library, processes, clock
        self.seconds = None if request.steps else request.seconds
        self.teller = Teller(on_event if processes.is_first else _nothing, self.seconds, clock)
        self._asked = check
        self.skipped: dict[str, str] = {}
        self.phases: list[dict[str, Any]] = []
        self.told = 0.0

    def check(self) -> None:
        """See `finetune`; the clock is asked too, so that it knows work from sleep."""
        self.clock()
        self._asked()

    def run(self) -> Outcome:
        self.teller.progress("checking the data set", 0.0)
        request, began = self.request, None
        if request.resume and self.processes.is_first:
            began = unfinished(request.dataset, request.name).plan["began"]
        setup = set_up(request, self.library, self.processes, self.processes.from_first(began), self.check)
        if not self.processes.is_first:
            return self._follow(setup)
        with training_folder(request.dataset, request.name, request.resume) as folder:
            if request.resume:
                plan = folder.plan
                self.teller.resumed(plan["used"])
                self.phases, self.told, self.skipped = plan["phases"], plan["used"], plan["skipped"]
            else:
                if self.seconds is not None:
                    check_beforehand(self.seconds, quick_estimate(setup))
                folder.settle(began=beginning(setup), used=0.0, phases=[], rounds={}, skipped={})
            return self._lead(setup, folder)

    # ------------------------------------------------------------------ the first process

    def _lead(self, setup: Setup, folder: TrainingFolder) -> Outcome:
        self.teller.say(f"Training on {describe(setup.device)}, {torch.get_num_threads()} CPU threads.")
        for problem in setup.unseen:
            self.teller.say(f"{problem.what} {problem.meaning} {problem.remedy}")
        before = self._before(setup, folder)
        version = self.library.next_version(self.request.name, setup.base)
        places = _places(setup)
        scores: Scores = {}
        drafts: dict[str, Path] = {}
        rows: list[dict[str, Any]] = []
        lost: dict[str, str] = {}
        for number, place in enumerate(places):
            trained, judged = self._round(setup, folder, place, version, len(places) - number)
            rows += [{**row, "fold": place.fold, "phase": PHASE_NAMES[row["gates"]]} for row in trained.rows]
            lost |= trained.unreadable
            scores |= judged
            drafts |= dict.fromkeys(judged, folder.path / place.name / "draft")
        self.processes.from_first({"place": None})
        draft = self._draft(trained, folder.round(places[-1].name))
        cost = cost_of(draft, self._judging(setup, folder.path, places[0]), self.check)
        after = summary(f"{self.request.name} {version}", scores, setup.plan.judged, cost)
        self.teller.measured("after", after["labels"])
        self._phase(folder, "measure the new model")
        before = _limited(before, folder.plan["scores"], scores, setup.plan.judged)
        better, why = judge(before["rival"] or before["base"], after)
        found = Findings(
            before=before["base"],
            rival=before["rival"],
            after=after,
            better=better,
            why=why,
            rows=rows,
            drafts=drafts,
            skipped=lost | self.skipped,
            phases=self.phases,
        )
        outcome = write_version(setup, folder, self.library, trained, found, self.teller, self.check)
        self.processes.from_first({"directory": str(outcome.bundle.directory), "report": str(outcome.report)})
        self.teller.progress("done", 1.0)
        return outcome

    def _before(self, setup: Setup, folder: TrainingFolder) -> dict[str, Any]:
        """Figures of the base, and of the version that is active now if that is another one; measured once."""
        if "before" in folder.plan:
            return folder.plan["before"]
        figures: dict[str, Any] = {"base": None, "rival": None}
        measured: dict[str, Scores] = {}
        sites = in_turn(_measured(setup, folder, range(setup.split.rounds)))
        seconds = 0.0  # the longest that a model took for all cases
        for which, bundle in (("base", setup.remembered), ("rival", setup.rival)):
            if bundle is None:
                continue
            name = f"{bundle.name} {bundle.version}"
            self.teller.progress(f"measuring {name} before the training", 0.0)
            values = setup.plan.of_base(bundle) if which == "base" else setup.plan.known_to(bundle)
            cases = [as_case(site, setup.plan) for site in sites]
            began = self.clock()
            enough = _never_enough if measured or self.seconds is None else are_enough(self.clock, self._measuring)
            scores = self._measure(bundle, setup, cases, values, f"measuring {name}", enough=enough)
            sites = [site for site in sites if site.name in scores]
            seconds = max(seconds, self.clock() - began)
            images = self._judging(setup, folder.path, _places(setup)[0])
            same = bundle.preprocessing == setup.source.preprocessing
            cost = cost_of(bundle, images, self.check) if same else {"gmac": None}
            figures[which], measured[which] = summary(name, scores, setup.plan.judged, cost), scores
            if which == "base":
                self.teller.measured("before", figures[which]["labels"])
        if not measured and self.seconds is not None:
            one = self._probed(setup, folder.path, sites)
            sites = as_many(sites, one, self._measuring)
            seconds = one * sum(math.prod(site.image.shape_kji) for site in sites)
        names = [site.name for site in sites]
        self._phase(folder, "measure the base", before=figures, scores=measured, measuring=seconds, measured=names)
        return figures

    @property
    def _measuring(self) -> float:
        """Seconds that measuring one model may take, where the time is limited."""
        return MEASURED_SHARE * (self.seconds or 0.0)

    def _probed(self, setup: Setup, folder: Path, sites: Sequence[SiteCase]) -> float:
        """Seconds that measuring a model takes per voxel, from the smallest of the cases."""
        self.teller.progress("timing how long a case takes", 0.0)
        voxels = {site.name: math.prod(site.image.shape_kji) for site in sites}
        smallest = min(sites, key=lambda site: voxels[site.name])
        config = write_recipe(self.request, setup.source, setup.plan, setup.form, "1.0.0", setup.licence)
        untrained = build_network(config.network, config.network_arguments).state_dict()
        bundle = write_bundle(config, untrained, folder / PROBE)
        began = self.clock()
        try:
            probe(bundle, as_case(smallest, setup.plan), setup.reader, setup.plan.judged, str(setup.device), self.check)
        except InputError as error:
            self.skipped[smallest.name] = error.what
        return (self.clock() - began) / voxels[smallest.name]

    def _measure(
        self,
        bundle: Bundle,
        setup: Setup,
        cases: list[Case],
        values: dict[int, int],
        what: str,
        share: float = 0.0,
        enough: Callable[[int], bool] = _never_enough,
    ) -> Scores:
        left = [case for case in cases if case.name not in self.skipped]
        measured = 0

        def tell(done: int, total: int) -> None:
            nonlocal measured
            measured = done
            self.teller.training(f"{what}: case {done} of {total}", share)

        try:
            return measure(
                bundle,
                left,
                setup.reader,
                values,
                setup.plan.judged,
                str(setup.device),
                check=self.check,
                on_case=tell,
                enough=enough,
            )
        except InputError as error:  # a file that became unreadable: leave it out, and say so
            if len(left) == 1:
                raise
            self.skipped[left[measured].name] = error.what
            return self._measure(bundle, setup, cases, values, what, share, enough)

    def _round(
        self, setup: Setup, folder: TrainingFolder, place: Place, version: str, rounds_left: int
    ) -> tuple[Trained, Scores]:
        """One training, planned, run and judged; each part only once, also when it is resumed in between."""
        home = folder.round(place.name)
        one = self._one(setup, folder.path, place)
        settled = folder.plan["rounds"].get(place.name)
        if settled is None:
            settled = one.plan(lambda: self._allowance(setup, folder, place, rounds_left))
            if not place.judged:
                settled["blend"] = _middle(folder.plan["rounds"].values())
            self._settle_round(folder, place, settled)
        told = {"place": asdict(place), "settled": settled, "version": version, "skipped": dict(self.skipped)}
        self.processes.from_first(told)
        try:
            trained = one.run(settled, version)
        finally:
            one.training.stop()
        if not settled["counted"]:
            settled |= {"counted": True, "blend": trained.blend}
            name = "training" if place.folds == 1 else f"training {place.fold} of {place.folds}"
            self._phase(folder, name, rounds={**folder.plan["rounds"], place.name: settled})
        if place.judged and "scores" not in settled:
            draft = self._draft(trained, home)
            same = {label.value: label.value for label in setup.plan.labels}
            cases = [as_case(site, setup.plan) for site in _measured(setup, folder, [place.fold - 1])]
            done = place.fold / place.folds
            began = self.clock()
            settled["scores"] = self._measure(draft, setup, cases, same, "measuring the new model", done)
            settled["case_seconds"] = (self.clock() - began) / max(1, len(cases))
            self._settle_round(folder, place, settled)
        return trained, settled.get("scores", {})

    def _one(self, setup: Setup, folder: Path, place: Place) -> Round:
        self.teller.training("preparing the cases", (place.fold - 1) / place.folds)
        prepared = self._learning(setup, folder, place), self._judging(setup, folder, place)
        return Round(setup, prepared, folder / place.name, place, self.teller, self.check, self.processes, self.clock)

    def _settle_round(self, folder: TrainingFolder, place: Place, settled: dict[str, Any]) -> None:
        folder.settle(rounds={**folder.plan["rounds"], place.name: settled}, skipped=dict(self.skipped))

    def _allowance(self, setup: Setup, folder: TrainingFolder, place: Place, rounds_left: int) -> Allowance | None:
        """The time of the next training: an even share of what all measuring, drawing and writing leaves. None where
        the amount of work is given instead."""
        if self.seconds is None:
            return None
        cases, folds = len(_measured(setup, folder, range(setup.split.rounds))), setup.split.rounds
        one = folder.plan.get("measuring", 0.0) / max(1, cases)
        one = [one, *(each["case_seconds"] for each in folder.plan["rounds"].values() if "case_seconds" in each)][-1]
        fold = MEASURING_MARGIN * cases / folds * one  # on average
        drawing = MEASURING_MARGIN * min(WORST_CASES, cases) * (1 if setup.remembered is None else 2) * one
        closing = drawing + CLOSING_SECONDS + CLOSING_SHARE * self.seconds
        left = self.seconds - self.teller.used
        if rounds_left == 1:
            after = closing + (fold if place.judged else 0.0)
            return Allowance(left, after)
        training = (left - closing - (rounds_left - 1) * fold) / rounds_left
        return Allowance(training + fold, fold)

    def _draft(self, trained: Trained, home: Path) -> Bundle:
        return write_bundle(trained.config, trained.weights, home / "draft")

    def _learning(self, setup: Setup, folder: Path, place: Place) -> PreparedCases:
        """The training cases of a round; the final one learns from all. By the clock, some are prepared meanwhile."""
        training, validation = setup.divided(place.fold - 1 if place.judged else 0)
        sites = training if place.judged else training + validation
        meanwhile = self.seconds is not None and self.processes.size == 1
        return self._prepared(setup, sites, folder, FIRST_CASES if meanwhile else None)

    def _judging(self, setup: Setup, folder: Path, place: Place) -> PreparedCases:
        """The validation cases of a round."""
        return self._prepared(setup, setup.divided(place.fold - 1 if place.judged else 0)[1], folder)

    def _prepared(self, setup: Setup, sites: list[SiteCase], folder: Path, first: int | None = None) -> PreparedCases:
        home = folder / f"prepared-{_digest(setup)}"
        cases = [as_case(site, setup.plan) for site in sites]
        return prepare_cases(setup, cases, home, self.skipped, self.check, first)

    def _phase(self, folder: TrainingFolder, name: str, **settled: Any) -> None:
        """Note how long a part took, together with what it settled: a process that is killed in between counts neither.

        Of a part that a killed process had begun, what is used further counts.
        """
        used = self.teller.used
        before = self.phases.pop()["seconds"] if self.phases and self.phases[-1]["name"] == name else 0.0
        self.phases.append({"name": name, "seconds": round(before + used - self.told, 1)})
        self.told = used
        folder.settle(used=used, phases=self.phases, skipped=dict(self.skipped), **settled)

    # ------------------------------------------------------------------ the other processes

    def _follow(self, setup: Setup) -> Outcome:
        """Train along; planning, measuring and writing are the first process's."""
        folder = self.request.dataset / TRAININGS / self.request.name
        while (given := self.processes.from_first({"place": None}))["place"] is not None:
            self.skipped = given["skipped"]
            one = self._one(setup, folder, Place(**given["place"]))
            one.run(given["settled"], given["version"])
        done = self.processes.from_first({"directory": "", "report": ""})
        report = Path(done["report"])
        summary = json.loads(report.read_text(encoding="utf-8"))
        bundle = load_bundle(done["directory"])
        return Outcome(bundle, summary["adopted"], summary["verdict"], report, report.with_suffix(".html"), summary)


def _measured(setup: Setup, folder: TrainingFolder, folds: Iterable[int]) -> list[SiteCase]:
    """The validation cases of the folds that models are measured on: all, unless fewer were settled."""
    sites = [site for fold in folds for site in setup.divided(fold)[1]]
    settled = folder.plan.get("measured")
    return sites if settled is None else [site for site in sites if site.name in settled]


def _places(setup: Setup) -> list[Place]:
    """The trainings it takes: one, or one per fold and a final one on all cases."""
    if not setup.split.is_cross_validation:
        return [Place("training", 1, 1)]
    folds = setup.split.rounds
    judged = [Place(f"fold-{number}", number, folds + 1) for number in range(1, folds + 1)]
    return [*judged, Place("final", folds + 1, folds + 1, judged=False)]


def _middle(rounds: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How far from the base the final training ends, which nothing judges: as far as those of the folds did."""
    blends = [settled["blend"] for settled in rounds if settled.get("blend")]
    if not blends:
        return None
    dice = {share: round(fmean(blend["dice"][share] for blend in blends), 5) for share in blends[0]["dice"]}
    return {"share": median_low(blend["share"] for blend in blends), "dice": dice}


def _limited(
    figures: dict[str, Any], scores: dict[str, Scores], after: Scores, judged: dict[int, str]
) -> dict[str, Any]:
    """`figures` of the base and the rival for the cases that the new model was measured on: a file can go meanwhile."""
    limited = dict(figures)
    for which, old in scores.items():
        both = {case: score for case, score in old.items() if case in after}
        limited[which] = {**figures[which], **summary(figures[which]["model"], both, judged, {})}
    return limited


def _digest(setup: Setup) -> str:
    """Names what decides the prepared form of a case, besides the case."""
    decides = [setup.source.preprocessing.as_dict(), sorted(setup.plan.site_values.items())]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
