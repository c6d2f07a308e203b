"""Fine-tune: from a few choices to a new version of a model, watched, cancelled, continued, decided on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from apformer.bundles import Label
from apformer.bundles.bundle import check_name
from apformer.errors import APFormerError, ConfigError
from apformer.finetuning.request import ADOPTIONS, LONGEST_SECONDS, SHORTEST_SECONDS
from apformer.names import find

from .cards import Card
from .collecting import Collecting
from .hosts import Worker
from .models import Models
from .runs import Run
from .segmenting import Estimate
from .signals import Signal
from .state import State
from .training import Trained, Training
from .versions import Versions
from .wording import Checked, checked

# Where an unfinished training is, as in apformer.finetuning.folder, which loads more.
_TRAININGS, _PLAN = "trainings", "plan.json"


@dataclass(frozen=True)
class Choices:
    """What a user decides before a fine-tuning; all else is the engine's.

    Attributes:
        name: the model to write; a new version of it when it exists.
        base: the model to begin with, a reference; "" trains from scratch.
        labels: names in the site's table; empty: all that occur in completed cases.
        mapping: the site's name of a label -> the base's name for the same structure.
        replace: whether the base's other labels are dropped.
        minutes: for everything.
        keep: share of the tokens to keep, above 0 and up to 1; None keeps all of them, also where the base is pruned.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        adopt: when the new version becomes the active one: "better", "always" or "never".
    """

    name: str = ""
    base: str = ""
    labels: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    replace: bool = False
    minutes: float = 15.0
    keep: float | None = None
    device: str = "auto"
    adopt: str = "better"

    def request(self, site: Path, resume: bool = False) -> dict[str, Any]:
        """The fields of a `finetune` job."""
        return {
            "dataset": str(site),
            "name": self.name,
            "base": self.base or None,
            "labels": list(self.labels),
            "mapping": dict(self.mapping),
            "replace": self.replace,
            "budget": None if self.keep is None else f"keep={self.keep:.3g}",
            "seconds": self.minutes * 60.0,
            "device": self.device,
            "adopt": self.adopt,
            "resume": resume,
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Choices:
        """What `as_data` gave; a value that cannot be is the default."""
        kept = {entry.name: data[entry.name] for entry in fields(Choices) if entry.name in data}
        try:
            choices = Choices(**{**kept, "labels": tuple(kept.get("labels", ()))})
            check_choices(choices)
        except (TypeError, ValueError, AttributeError, APFormerError):
            return Choices()
        return choices

    def as_data(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "labels": list(self.labels)}


class Tuning:
    """Fine-tunings of the site's models; one at a time.

    Attributes:
        training: the last one, also when it is over; None before the first.
        started: a training was sent to the worker.
    """

    def __init__(
        self, worker: Worker, state: State, collecting: Collecting, models: Models, versions: Versions
    ) -> None:
        self.training: Training | None = None
        self.started: Signal[Training] = Signal()
        self._worker, self._state, self._collecting = worker, state, collecting
        self._models, self._versions = models, versions

    @property
    def choices(self) -> Choices:
        """Those of the last time, or the defaults."""
        return Choices.from_data(self._state.tuning)

    @choices.setter
    def choices(self, choices: Choices) -> None:
        self._state.tuning = choices.as_data()

    def check(self, choices: Choices) -> Checked:
        """Whether it can be tried, as far as can be said without the worker; `estimate` says more."""
        return checked(lambda: self._prepare(choices, resume=False))

    def can_resume(self, name: str) -> Checked:
        """Whether an unfinished training of that model can be continued."""
        return checked(lambda: self._require_unfinished(name))

    def estimate(self, choices: Choices) -> Run:
        """Ask the worker whether it can run, and what it would train on; the run's outcome is an `Estimate`.

        Raises:
            APFormerError: as `start`.
        """
        request = self._prepare(choices, resume=False)
        run = Run(self._worker, "preflight", f"estimate for {choices.name}", Estimate.from_data)
        run.start({"for": "finetune", **request})
        return run

    def start(self, choices: Choices, *, resume: bool = False) -> Training:
        """Fine-tune; or continue the unfinished training of that name.

        The training goes on when the scene is closed: it works on the data set.

        Raises:
            ConfigError: no data set, a choice that cannot be, or a training is running.
            BundleError: no such base. JobError: no worker can be started.
        """
        request = self._prepare(choices, resume)
        if self.training is not None and not self.training.run.over:
            raise ConfigError(
                f"{self.training.name} is being trained already.",
                "Two at once would slow each other down.",
                "Wait for it to end, or cancel it.",
            )
        run = Run(self._worker, "finetune", f"fine-tuning of {choices.name}", self._finish)
        training = Training(run, choices.name, self._labels(choices))
        run.start(request)
        self.choices, self.training = choices, training
        self.started.emit(training)
        return training

    def cancel(self) -> None:
        """Stop the training after its present step; what it has learned is kept, and `start` can resume it."""
        if self.training is not None:
            self.training.run.cancel()

    def require_trained(self) -> Trained:
        """What the last training left; raises ConfigError when there is nothing to decide on."""
        trained = None if self.training is None else self.training.trained
        if trained is None:
            raise ConfigError(
                "There is no new version to decide on.",
                "No training was finished since the program was started.",
                "Fine-tune first; earlier versions are in the list of versions.",
            )
        return trained

    def adopt(self, trained: Trained | None = None) -> None:
        """Make the new version the active one; by default that of the last training.

        Raises:
            ConfigError: there is none. BundleError: it was removed, or is unsound. OutputError: nothing changed.
        """
        trained = trained or self.require_trained()
        self._versions.adopt(trained.reference, "adopted by the user after fine-tuning")

    def keep_old(self, trained: Trained | None = None) -> None:
        """Leave active what was active before; the new version is kept.

        Raises:
            ConfigError: nothing was trained. BundleError: nothing was active before. OutputError: nothing changed.
        """
        trained = trained or self.require_trained()
        name = trained.reference.partition("@")[0]
        active = next((row for row in self._versions.rows(name) if row.active), None)
        if active is not None and active.card.reference == trained.reference:
            self._versions.roll_back(name, "the user kept the old version")

    def stop(self) -> None:
        """The program is being closed: the training can be resumed."""
        self.cancel()

    def _labels(self, choices: Choices) -> list[Label]:
        """Those of the base, which keep their colours, then the site's own."""
        base = self._models.find(choices.base).labels if choices.base else ()
        return [*base, *(label for label in self._collecting.dataset.labels if find(label.name, _names(base)) is None)]

    def _finish(self, data: dict[str, Any]) -> Trained:
        trained = Trained.from_data(data)
        self._versions.changed.emit(str(data["name"]))
        return trained

    def _prepare(self, choices: Choices, resume: bool) -> dict[str, Any]:
        dataset = self._collecting.dataset
        check_choices(choices)
        base = self._models.find(choices.base) if choices.base else None
        names = [label.name for label in dataset.labels]
        unknown = [name for name in (*choices.labels, *choices.mapping) if find(name, names) is None]
        if unknown:
            raise ConfigError(
                f"The data set has no label {unknown[0]!r}.",
                "It cannot be trained.",
                f"Choose from: {', '.join(names)}.",
            )
        if base is not None:
            _check_partners(choices, choices.labels or names, base)
        if resume:
            self._require_unfinished(choices.name)
        return choices.request(dataset.root, resume)

    def _require_unfinished(self, name: str) -> None:
        check_name(name)
        if not (self._collecting.dataset.root / _TRAININGS / name / _PLAN).exists():
            raise ConfigError(
                f"There is no unfinished training of {name}.", "There is nothing to continue.", "Start a new one."
            )


def _names(labels: Sequence[Label]) -> list[str]:
    return [label.name for label in labels]


def check_choices(choices: Choices) -> None:
    """What can be told of choices alone.

    Raises:
        BundleError: the name cannot be that of a model.
        ConfigError: another value that cannot be.
    """
    check_name(choices.name)
    _refuse_unless(
        SHORTEST_SECONDS <= choices.minutes * 60.0 <= LONGEST_SECONDS,
        f"A time of {choices.minutes:g} minutes was chosen.",
        "Choose at least 20 seconds and at most 30 days; 15 minutes are a good beginning.",
    )
    _refuse_unless(
        choices.keep is None or 0.0 < choices.keep <= 1.0,
        f"The share of the image to look at closely is {choices.keep}.",
        "Choose a share above 0 and up to 1, such as 0.3.",
    )
    _refuse_unless(
        bool(choices.base) or not (choices.mapping or choices.replace),
        "Labels of a base were mapped or dropped, but there is no base.",
        "Choose a base, or leave the labels.",
    )
    _refuse_unless(
        choices.adopt in ADOPTIONS,
        f"The new version is to be adopted {choices.adopt!r}.",
        "Choose better, always or never.",
    )


def _check_partners(choices: Choices, learned: Sequence[str], base: Card) -> None:
    """Raises ConfigError when a label of the base is none, or is two labels of the site; the engine's rule, told before
    a job."""
    partners: dict[str, str] = {}
    for name in learned:
        wanted = choices.mapping.get(name, name)
        partner = find(wanted, base.label_names) or wanted
        _refuse_unless(
            name not in choices.mapping or partner in base.label_names,
            f"The model {base.name} has no label {partner!r}.",
            f"Choose one of: {', '.join(base.label_names)}.",
        )
        _refuse_unless(
            partner not in partners or partner not in base.label_names,
            f"{partners.get(partner)} and {name} would both be {partner} of the base.",
            "Choose a label of its own for each, or leave one out.",
        )
        partners[partner] = name


def _refuse_unless(holds: bool, what: str, remedy: str) -> None:
    if not holds:
        raise ConfigError(what, "The fine-tuning cannot start.", remedy)
