"""`store`: an image and its corrected labels into a site's data set, as a new case or as new labels of a known one.

Fields: dataset (folder); array {file, ijk_to_ras, modality, picture, name}; labels {file, start_kji, shape_kji} and
names {value: label's name}; patient (any identity, kept as a pseudonym only); status; who; comment; made_by (the model
that proposed the labels); proposal {model, names, labels}: what it had proposed, which becomes an earlier version of
the labels. outlined: names in the data set's table of the structures that were outlined, besides those that occur; all
others are unknown. Left out, all were, or those of before where labels are replaced. `correct`: the image is a known
one, whose labels are replaced. `case`: likewise, by the case's name; without "array".

Where the image is a case already, and neither was asked for, nothing is changed and "present" names it. Cancelled, or
ended with its process, the job leaves the data set as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...names import find
from ..image import Image, PartFile
from ..messages import Fields, RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from ...datasets import SiteCase, SiteDataset
    from ...volume import Volume
    from ..job import Job

_STATUSES = ("in progress", "completed", "flagged")  # as in datasets, which is loaded when it is used
_LARGEST_VALUE = 255


@dataclass(frozen=True)
class Labels:
    """A label map, and the names of its values."""

    file: PartFile
    names: dict[int, str]

    @staticmethod
    def parse(fields: Fields) -> Labels:
        """From "labels" and "names"."""
        return Labels(PartFile.parse(fields.section("labels")), _names(fields))

    def on(self, image: Volume) -> Volume:
        """On the grid of the image, which may be known without its voxels."""
        from ...volume import Volume

        return Volume(self.file.read().whole(), image.ijk_to_ras)


@dataclass(frozen=True)
class Proposal:
    """What a model had proposed. `model`: such as "liver-ct 1.1.0"."""

    model: str
    labels: Labels

    @staticmethod
    def parse(fields: Fields) -> Proposal:
        proposal = Proposal(fields.text("model"), Labels.parse(fields))
        fields.close()
        return proposal


@dataclass(frozen=True)
class Arguments:
    """`image` is None where `case` names a known one."""

    dataset: Path
    image: Image | None
    case: str | None
    labels: Labels
    correct: bool
    patient: str | None
    status: str | None
    who: str | None
    comment: str | None
    made_by: str | None
    proposal: Proposal | None
    outlined: tuple[str, ...] | None


def parse(fields: Fields) -> Arguments:
    case = fields.optional_text("case")
    if (case is None) != fields.has("array"):
        raise RequestError(f"The request ({fields.job}) needs either 'array' or 'case'.")
    return Arguments(
        fields.path("dataset"),
        None if case is not None else Image.parse(fields),
        case,
        Labels.parse(fields),
        fields.flag("correct"),
        fields.optional_text("patient"),
        fields.choice("status", _STATUSES) if fields.has("status") else None,
        fields.optional_text("who"),
        fields.optional_text("comment"),
        fields.optional_text("made_by"),
        Proposal.parse(fields.section("proposal")) if fields.has("proposal") else None,
        fields.texts("outlined") if fields.has("outlined") else None,
    )


def run(job: Job) -> dict[str, Any]:
    from ... import steps
    from ...datasets import DuplicateCaseError, SiteDataset

    asked: Arguments = job.arguments
    job.progress(0.0, "reading")
    dataset = SiteDataset.open(asked.dataset)
    with steps.told(_Progress(job)):
        try:
            case, notes = _store(dataset, asked)
        except DuplicateCaseError as error:
            return {"present": error.case.name, "reason": error.as_dict()}
    return {"present": None, "case": case.name, "status": case.status, "notes": list(notes)}


def _store(dataset: SiteDataset, asked: Arguments) -> tuple[SiteCase, tuple[str, ...]]:
    image = None if asked.image is None else asked.image.read()
    said: dict[str, Any] = {
        "status": asked.status, "who": asked.who, "comment": asked.comment, "outlined": asked.outlined
    }  # fmt: skip
    if image is None:
        from ...datasets.case_files import stored_grid

        grid = stored_grid(dataset.case(asked.case or ""))
        return dataset.correct(asked.case or "", asked.labels.on(grid), names=asked.labels.names, **said), ()
    labels, proposal = asked.labels.on(image), None if asked.correct else asked.proposal
    if proposal is None:
        made_by = None if asked.correct else asked.made_by
        said |= {"patient": asked.patient, "correct": asked.correct, "proposed_by": made_by}
        return dataset.add(image, labels, names=asked.labels.names, **said)
    known = [label.name for label in dataset.labels]
    first, notes = dataset.add(
        image,
        proposal.labels.on(image),
        patient=asked.patient,
        names=proposal.labels.names,
        mapping={name: None for name in proposal.labels.names.values() if find(name, known) is None},
        proposed_by=proposal.model,
    )
    return dataset.correct(first.name, labels, names=asked.labels.names, **said), notes


class _Progress:
    """Steps of the data set as progress of the job; each goes from where the one before ended."""

    def __init__(self, job: Job) -> None:
        from ...datasets.case_files import LABELLING, PROVING, STORING

        self._job = job
        spans = {STORING: (0.1, 0.7), PROVING: (0.7, 0.8), LABELLING: (0.8, 1.0)}
        self._spans: Mapping[str, tuple[float, float]] = spans

    def __call__(self, step: str, share: float) -> None:
        low, high = self._spans.get(step, (0.0, 0.1))
        self._job.progress(low + (high - low) * share, step)


def _names(fields: Fields) -> dict[int, str]:
    """Value -> name; JSON has texts for keys."""
    names = fields.texts_by_name("names")
    if not all(value.isascii() and value.isdigit() and 0 < int(value) <= _LARGEST_VALUE for value in names):
        raise RequestError(f"The request ({fields.job}) needs 'names': label values from 1 to {_LARGEST_VALUE}.")
    return {int(value): name for value, name in names.items()}
