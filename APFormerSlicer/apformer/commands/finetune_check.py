"""What can be said of a fine-tuning before it starts: problems of the data set, and what becomes of each label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError, InputError

if TYPE_CHECKING:
    from ..bundles import Bundle
    from ..datasets import Problem, SiteDataset
    from ..finetuning.labels import LabelPlan
    from ..finetuning.request import Request

# Kinds of problems that the plan of the labels answers, for it knows what was mapped and what is kept.
_ANSWERED = ("new labels", "missing labels")
_ANSWERED_BY_MAPPING = "label names"


@dataclass(frozen=True)
class Checked:
    """A request beside its data set and base.

    Attributes:
        found: all problems that the index of the data set shows, those that block first; files are not read.
    """

    request: Request
    dataset: SiteDataset
    base: Bundle | None
    found: tuple[Problem, ...]

    @property
    def problems(self) -> list[Problem]:
        """Those to tell: not what `label_lines` says better."""
        answered = _ANSWERED + ((_ANSWERED_BY_MAPPING,) if self.request.mapping else ())
        return [problem for problem in self.found if problem.kind not in answered]

    def refuse_blocked(self) -> None:
        """Raises ConfigError when a problem keeps the training from starting."""
        from ..datasets import BLOCKS

        for problem in self.found:
            if problem.severity == BLOCKS:
                raise ConfigError(problem.what, problem.meaning, problem.remedy)

    def plan(self) -> LabelPlan:
        """The labels of the new model.

        Raises:
            ConfigError: see `plan_labels`.
        """
        from ..datasets import COMPLETED
        from ..finetuning.labels import plan_labels

        revisions = [case.revision for case in self.dataset.cases(COMPLETED)]
        occurring = {value for revision in revisions if revision is not None for value in revision.counts}
        return plan_labels(self.dataset.labels, occurring, self.base, self.request)


def check_request(request: Request) -> Checked:
    """Look at the data set and the base.

    Raises:
        InputError, ConfigError: no data set, or a damaged one.
        BundleError: no such base, or it is unsound.
    """
    from ..bundles import ModelLibrary
    from ..datasets import SiteDataset, check_dataset

    if not request.dataset.is_dir():
        raise InputError(
            f"{request.dataset} is not a folder.",
            "There are no cases to learn from.",
            "Check the path of the data set.",
        )
    dataset = SiteDataset.open(request.dataset)
    base = None if request.base is None else ModelLibrary().find(request.base)
    problems = check_dataset(dataset, base, read_files=False, learned=request.labels)
    return Checked(request, dataset, base, tuple(problems))


def label_lines(plan: LabelPlan) -> list[str]:
    """One line per label of the new model: where it comes from, and whether the cases teach it; and what is dropped."""
    lines = [f"{label['name']}: {_origin(label['how'], label['trained'])}" for label in plan.describe()]
    return [*lines, f"dropped from the base: {', '.join(plan.dropped)}"] if plan.dropped else lines


def _origin(how: str, trained: bool) -> str:
    if how == "new":
        return "new"
    known = "known to the base" if how == "kept" else f"known to the base, {how}"
    return f"{known}, trained further" if trained else f"{known}, not labelled here, kept"
