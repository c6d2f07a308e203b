"""A whole fine-tuning: measure the base, adapt, prune, measure again, write a version, decide which one is active."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

import torch

from ..bundles import Bundle, ModelLibrary, load_bundle
from ..errors import InputError
from ..inference.devices import describe
from ..training.cases import Case, PreparedCases
from ..training.parallel import Processes
from ..training.run import write_bundle
from .cases import as_case
from .events import Listener, Teller
from .folder import TRAININGS, TrainingFolder, training_folder, unfinished
from .measure import Scores, cost_of, measure, summary
from .outcome import WORST_CASES, Findings, Outcome, write_version
from .recipe import PHASE_NAMES
from .request import Request
from .rounds import Place, Round, Trained, prepare_cases
from .setup import Setup, beginning, set_up
from .verdict import judge

# Kept of the time for what comes after the training: measuring (as long as the base took, with a margin), pictures,
# counting operations, writing.
MEASURING_MARGIN = 1.2
CLOSING_SECONDS = 5.0
CLOSING_SHARE = 0.02


def _nothing(event: dict[str, Any]) -> None:
    """The default listener."""


def _never() -> None:
    """The default of `check`."""


def finetune(
    request: Request,
    *,
    library: ModelLibrary | None = None,
    on_event: Listener = _nothing,
    check: Callable[[], None] = _never,
) -> Outcome:
    """Fine-tune on a site's cases and write a new version of the model.

    Args:
        library: where the base is found and the new version goes.
        on_event: told what happens, see `events`; in the first process only.
        check: called at least once a second; stops the training by raising. What was learned until the last epoch
            stays, and `resume` continues it.

    Raises:
        APFormerError: see `set_up`, `training_folder` and `plan_effort`; OutputError when the disk is full: the
            checkpoint of the epoch before stays.
    """
    processes = Processes.from_environment()
    with _threads(request.threads):
        return _Session(request, library or ModelLibrary(), on_event, check, processes).run()


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
    ) -> None:
        self.request, self.library, self.check, self.processes = request, library, check, processes
        self.seconds = None if request.epochs else request.seconds
        self.teller = Teller(on_event if processes.is_first else _nothing, self.seconds)
        self.skipped: dict[str, str] = {}
        self.phases: list[dict[str, Any]] = []
        self.told = 0.0

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
                folder.settle(began=beginning(setup), used=0.0, phases=[], rounds={}, skipped={})
            return self._lead(setup, folder)

    # ------------------------------------------------------------------ the first process

    def _lead(self, setup: Setup, folder: TrainingFolder) -> Outcome:
        self.teller.say(f"Training on {describe(setup.device)}, {torch.get_num_threads()} CPU threads.")
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
        cost = cost_of(draft, self._prepared(setup, folder.path, places[0])[1], self.check)
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
        for which, bundle in (("base", setup.base), ("rival", setup.rival)):
            if bundle is None:
                continue
            name = f"{bundle.name} {bundle.version}"
            self.teller.progress(f"measuring {name} before the training", 0.0)
            values = setup.plan.of_base(bundle) if which == "base" else setup.plan.known_to(bundle)
            cases = self._validation_cases(setup)
            scores = self._measure(bundle, setup, cases, values, f"measuring {name}")
            images = self._prepared(setup, folder.path, _places(setup)[0])[1]
            same = bundle.preprocessing == setup.source.preprocessing
            cost = cost_of(bundle, images, self.check) if same else {"gmac": None}
            figures[which], measured[which] = summary(name, scores, setup.plan.judged, cost), scores
            if which == "base":
                self.teller.measured("before", figures[which]["labels"])
        self._phase(folder, "measure the base", before=figures, scores=measured)
        return figures

    def _measure(
        self, bundle: Bundle, setup: Setup, cases: list[Case], values: dict[int, int], what: str, share: float = 0.0
    ) -> Scores:
        left = [case for case in cases if case.name not in self.skipped]
        measured = 0

        def tell(done: int, total: int) -> None:
            nonlocal measured
            measured = done
            self.teller.training(f"{what}: case {done} of {total}", share)

        try:
            return measure(
                bundle, left, setup.reader, values, setup.plan.judged, str(setup.device), check=self.check, on_case=tell
            )
        except InputError as error:  # a file that became unreadable: leave it out, and say so
            if len(left) == 1:
                raise
            self.skipped[left[measured].name] = error.what
            return self._measure(bundle, setup, cases, values, what, share)

    def _validation_cases(self, setup: Setup) -> list[Case]:
        return [as_case(site, setup.plan) for fold in range(setup.split.rounds) for site in setup.divided(fold)[1]]

    def _round(
        self, setup: Setup, folder: TrainingFolder, place: Place, version: str, rounds_left: int
    ) -> tuple[Trained, Scores]:
        """One training, planned, run and judged; each part only once, also when it is resumed in between."""
        home = folder.round(place.name)
        one = self._one(setup, folder.path, place)
        settled = folder.plan["rounds"].get(place.name)
        if settled is None:
            settled = one.plan(lambda validation: self._time_for(setup, folder, rounds_left, validation))
            if not place.judged:
                settled["blend"] = _middle(folder.plan["rounds"].values())
            self._settle_round(folder, place, settled)
        told = {"place": asdict(place), "settled": settled, "version": version, "skipped": self.skipped}
        self.processes.from_first(told)
        trained = one.run(settled, version)
        if not settled["counted"]:
            settled |= {"counted": True, "blend": trained.blend}
            name = "training" if place.folds == 1 else f"training {place.fold} of {place.folds}"
            self._phase(folder, name, rounds={**folder.plan["rounds"], place.name: settled})
        if place.judged and "scores" not in settled:
            draft = self._draft(trained, home)
            same = {label.value: label.value for label in setup.plan.labels}
            cases = [as_case(site, setup.plan) for site in setup.divided(place.fold - 1)[1]]
            done = place.fold / place.folds
            settled["scores"] = self._measure(draft, setup, cases, same, "measuring the new model", done)
            self._settle_round(folder, place, settled)
        return trained, settled.get("scores", {})

    def _one(self, setup: Setup, folder: Path, place: Place) -> Round:
        prepared = self._prepared(setup, folder, place)
        return Round(setup, prepared, folder / place.name, place, self.teller, self.check, self.processes)

    def _settle_round(self, folder: TrainingFolder, place: Place, settled: dict[str, Any]) -> None:
        folder.settle(rounds={**folder.plan["rounds"], place.name: settled}, skipped=self.skipped)

    def _time_for(self, setup: Setup, folder: TrainingFolder, rounds_left: int, validation: float) -> float | None:
        """Seconds of the next training: an even share of what is left after all measuring, drawing and writing.

        Args:
            validation: a guess of the seconds in which the new network sees the validation cases of this round.
        """
        if self.seconds is None:
            return None
        before = (folder.plan.get("before") or {}).get("base")
        places = _places(setup)
        old_case = before["ms_per_case"] / 1000 if before and before["ms_per_case"] else 0.0
        new_case = max(old_case, validation / max(1, len(setup.divided(0)[1])))
        measuring = len(self._validation_cases(setup)) * new_case * rounds_left / len(places)
        drawing = WORST_CASES * (old_case + new_case)
        closing = CLOSING_SECONDS + CLOSING_SHARE * self.seconds
        left = self.seconds - self.teller.used - MEASURING_MARGIN * (measuring + drawing) - closing
        return left / rounds_left

    def _draft(self, trained: Trained, home: Path) -> Bundle:
        return write_bundle(trained.config, trained.weights, home / "draft")

    def _prepared(self, setup: Setup, folder: Path, place: Place) -> tuple[PreparedCases, PreparedCases]:
        """(training, validation) cases of a round; the final one trains on all, and is not judged."""
        self.teller.training("preparing the cases", (place.fold - 1) / place.folds)
        if place.judged:
            training, validation = setup.divided(place.fold - 1)
        else:
            training, validation = setup.divided(0)
            training = training + validation
        home = folder / f"prepared-{_digest(setup)}"
        parts = [
            prepare_cases(setup, [as_case(site, setup.plan) for site in part], home, self.skipped, self.check)
            for part in (training, validation)
        ]
        return parts[0], parts[1]

    def _phase(self, folder: TrainingFolder, name: str, **settled: Any) -> None:
        """Note how long a part took, together with what it settled: a process that is killed in between counts neither.

        Of a part that a killed process had begun, what is used further counts.
        """
        used = self.teller.used
        before = self.phases.pop()["seconds"] if self.phases and self.phases[-1]["name"] == name else 0.0
        self.phases.append({"name": name, "seconds": round(before + used - self.told, 1)})
        self.told = used
        folder.settle(used=used, phases=self.phases, skipped=self.skipped, **settled)

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
