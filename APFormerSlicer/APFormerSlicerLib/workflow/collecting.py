"""The site's data set: corrected cases are added to it, listed, opened again to be edited, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from apformer.bundles import Label
from apformer.errors import ConfigError, InputError
from apformer.names import find, twice
from apformer.volume import Volume

from ..scene import Status, status_of, to_label_map, to_volume
from ..scene.provenance import of_segment
from .cards import Card
from .opening import open_case, opened_case
from .patients import patient_of
from .proposals import Proposal, Proposals
from .reviewing import LONGEST_COMMENT, comment_of
from .signals import Signal
from .state import State
from .wording import Checked, checked

if TYPE_CHECKING:  # the data set loads SimpleITK: when it is used, not when the module is
    from apformer.datasets import Problem, SiteCase, SiteDataset


_PICTURE_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # as in apformer.files.picture


@dataclass(frozen=True)
class CaseRow:
    """A case as a table shows it: nothing in it names the patient.

    Attributes:
        date: of the last change, ISO 8601, UTC.
        volumes_ml: by label, those that occur.
        proposed_by: the model that a person corrected, such as "liver-ct 1.1.0"; None when there was none.
    """

    name: str
    status: str
    date: str
    modality: str | None
    volumes_ml: Mapping[str, float]
    proposed_by: str | None
    comment: str


@dataclass(frozen=True)
class Added:
    """A case as it is in the data set now. `notes`: what the user should know, such as segments left out."""

    case: SiteCase
    notes: tuple[str, ...]


class Collecting:
    """The data set whose folder the state names.

    Attributes:
        changed: another folder was chosen, or the cases changed.
    """

    def __init__(self, scene: Any, state: State, proposals: Proposals) -> None:
        self.changed: Signal[()] = Signal()
        self._scene, self._state, self._proposals = scene, state, proposals
        self._open: SiteDataset | None = None

    # ---------------------------------------------------------------- the folder

    def choose(self, folder: Path | str) -> SiteDataset:
        """Take an existing data set.

        Raises:
            ConfigError: there is none in the folder, or it cannot be read.
        """
        from apformer.datasets import SiteDataset

        return self._take(SiteDataset.open(folder))

    def create(self, folder: Path | str, labels: Sequence[Label] | Card) -> SiteDataset:
        """Make an empty data set and take it. Its label table begins as `labels`, such as those of a model.

        Raises:
            ConfigError: the folder holds something. OutputError: it cannot be written.
        """
        from apformer.datasets import SiteDataset

        return self._take(SiteDataset.create(folder, labels.labels if isinstance(labels, Card) else labels))

    @property
    def dataset(self) -> SiteDataset:
        """The data set as it is on disk now.

        Raises:
            ConfigError: no folder is chosen, or there is no data set in it any more.
        """
        from apformer.datasets import SiteDataset

        folder = self._state.site_folder
        if folder is None:
            raise ConfigError(
                "No folder for the site's cases is chosen.",
                "Corrected cases are kept there, and a model learns from them.",
                "Choose the folder of a data set, or create one.",
            )
        if self._open is None or self._open.root != folder:
            self._open = SiteDataset.open(folder)
        else:
            self._open.reload()
        return self._open

    # ---------------------------------------------------------------- cases

    def check(self, volume_node: Any, segmentation_node: Any, patient: str | None = None) -> Checked:
        """Whether `add` can be tried."""
        return checked(lambda: self._prepare(volume_node, segmentation_node, patient))

    def add(
        self,
        volume_node: Any,
        segmentation_node: Any,
        *,
        patient: str | None = None,
        status: str | None = None,
        comment: str | None = None,
        correct: bool = False,
    ) -> Added:
        """Copy the image and its corrected segmentation into the data set.

        What the model had proposed is kept as an earlier version of the labels, where it is still known. A case that
        was opened from the data set is corrected there.

        Args:
            patient: any identity, kept as a pseudonym; left out, the DICOM patient ID.
            status: "in progress", "completed" or "flagged"; left out, what the segments' statuses say.
            comment: left out, that of the flagged segments.
            correct: the image is known, and its labels are to be replaced.

        Raises:
            DuplicateCaseError: the image is a case already; ask, then call again with `correct`.
            InputError, ConfigError: image or labels cannot be used; no segment has the name of a label; no patient.
            OutputError: the folder cannot be written.
        """
        dataset, volume, labels, identity = self._prepare(volume_node, segmentation_node, patient)
        segments = _segments(segmentation_node)
        status = status or _status([segments[name] for name in _matched(segments, dataset.labels).values()])
        said = dict.fromkeys(filter(None, map(comment_of, segments.values())))  # each remark once
        comment = comment or "; ".join(said)[:LONGEST_COMMENT] or None
        who, made_by = self._state.who or None, _made_by(segments)
        opened = opened_case(volume_node, dataset.root)
        notes: tuple[str, ...] = ()
        if opened is not None:
            case = dataset.correct(opened, labels, status=status, proposed_by=None, who=who, comment=comment)
        elif correct:
            case, notes = dataset.add(
                volume, labels, patient=identity, status=status, who=who, comment=comment, correct=True
            )
        else:
            proposal = self._proposals.of(segmentation_node, volume_node)
            case, notes = self._add_new(dataset, volume, labels, proposal, made_by, identity, status, who, comment)
        self.changed.emit()
        return Added(case, (*notes, *_left_out(segments, dataset.labels)))

    def rows(self) -> list[CaseRow]:
        """The cases, in the order in which they were added.

        Raises:
            ConfigError: as `dataset`.
        """
        dataset = self.dataset
        names = {label.value: label.name for label in dataset.labels}
        return [_row(case, names) for case in dataset.cases()]

    def open(self, name: str) -> tuple[Any, Any]:
        """Load a case to edit it: the nodes of its image and its segmentation, which are chosen in the state.

        Raises:
            ConfigError: there is no such case. InputError: a file of it cannot be read.
        """
        dataset = self.dataset
        volume_node, segmentation_node = open_case(self._scene, dataset.case(name), dataset.labels)
        self._state.volume, self._state.segmentation = volume_node, segmentation_node
        return volume_node, segmentation_node

    def set_status(self, name: str, status: str, comment: str | None = None) -> None:
        """Change the status of a case.

        Raises:
            ConfigError: no such case or status, or it has no labels. OutputError: the folder cannot be written.
        """
        self.dataset.correct(name, status=status, who=self._state.who or None, comment=comment)
        self.changed.emit()

    def add_label(self, name: str) -> Label:
        """Add a name to the label table.

        Raises:
            ConfigError: it is taken. OutputError: the folder cannot be written.
        """
        label = self.dataset.add_label(name)
        self.changed.emit()
        return label

    def problems(self, *, read_files: bool = False) -> list[Problem]:
        """What would spoil a training, what blocks one first. With `read_files`, every file is compared: slow.

        Raises:
            ConfigError: as `dataset`.
        """
        from apformer.datasets import check_dataset

        return check_dataset(self.dataset, read_files=read_files)

    def _take(self, dataset: SiteDataset) -> SiteDataset:
        self._open, self._state.site = dataset, str(dataset.root)
        self.changed.emit()
        return dataset

    def _prepare(
        self, volume_node: Any, segmentation_node: Any, patient: str | None
    ) -> tuple[SiteDataset, Volume, Volume, str | None]:
        """The data set, the image, its labels with the values of the table, and the patient's identity."""
        dataset, volume = self.dataset, to_volume(volume_node)
        if segmentation_node is None or segmentation_node.GetScene() is not self._scene:
            raise InputError(
                "No segmentation of the scene is chosen.",
                "A case is an image and its labels.",
                "Choose the corrected segmentation.",
            )
        identity = (patient or "").strip() or patient_of(volume_node)
        if identity is None and opened_case(volume_node, dataset.root) is None:
            raise InputError(
                f"It is not known of which patient {volume_node.GetName()} is.",
                "Cases are divided by patient for training and validation.",
                "Give the patient's ID; it is kept only as a pseudonym.",
            )
        _refuse_twins(segmentation_node, dataset.labels)
        labels = to_label_map(segmentation_node, volume_node, dataset.labels)
        return dataset, _placed(volume), _placed(labels), identity

    def _add_new(
        self,
        dataset: SiteDataset,
        volume: Volume,
        labels: Volume,
        proposal: Proposal | None,
        made_by: str | None,
        identity: str | None,
        status: str,
        who: str | None,
        comment: str | None,
    ) -> tuple[SiteCase, tuple[str, ...]]:
        """A new case: what was proposed first, where it is known, then what the person made of it."""
        if proposal is None or proposal.shape_kji != volume.spatial_shape:
            return dataset.add(
                volume, labels, patient=identity, status=status, who=who, comment=comment, proposed_by=made_by
            )
        known = [label.name for label in dataset.labels]
        case, notes = dataset.add(
            volume,
            Volume(proposal.array, volume.ijk_to_ras),
            patient=identity,
            names={label.value: label.name for label in proposal.labels},
            mapping={label.name: None for label in proposal.labels if find(label.name, known) is None},
            proposed_by=proposal.model,
        )
        return dataset.correct(case.name, labels, status=status, who=who, comment=comment), notes


def _placed(volume: Volume) -> Volume:
    """Pictures are kept as files that hold no geometry: their pixels lie where the engine reads them."""
    return replace(volume, ijk_to_ras=_PICTURE_TO_RAS) if volume.source.kind == "picture" else volume


def _segments(segmentation_node: Any) -> dict[str, Any]:
    """Name -> segment; of several of one name, the first."""
    segmentation = segmentation_node.GetSegmentation()
    found: dict[str, Any] = {}
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        found.setdefault(segment.GetName(), segment)
    return found


def _refuse_twins(segmentation_node: Any, table: Sequence[Label]) -> None:
    """InputError when two segments have the name of one label: which of them is meant is not known."""
    segmentation = segmentation_node.GetSegmentation()
    names = [segmentation.GetNthSegment(number).GetName() for number in range(segmentation.GetNumberOfSegments())]
    known = [label.name for label in table]
    repeated = twice(name for name in names if find(name, known) is not None)
    if repeated is not None:
        raise InputError(
            f"{segmentation_node.GetName()} has two segments named {repeated[0]!r} and {repeated[1]!r}.",
            "Labels are matched by name, whatever its case and blanks, so these two would be one.",
            "Rename one of them, or merge them (Segment Editor, Logical operators, Add).",
        )


def _matched(segments: Mapping[str, Any], table: Sequence[Label]) -> dict[str, str]:
    """Label's name -> its segment's, as `apformer.names` tells what is the same."""
    matched: dict[str, str] = {}
    known = [label.name for label in table]
    for name in segments:
        label = find(name, known)
        if label is not None:
            matched.setdefault(label, name)
    return matched


def _left_out(segments: Mapping[str, Any], table: Sequence[Label]) -> list[str]:
    matched = set(_matched(segments, table).values())
    left = [name for name in segments if name not in matched]
    return [f"Not in the label table, so not stored: {', '.join(left)}."] if left else []


def _status(segments: Sequence[Any]) -> str:
    from apformer.datasets import COMPLETED, FLAGGED, IN_PROGRESS

    statuses = [status_of(segment) for segment in segments]
    if Status.FLAGGED in statuses:
        return FLAGGED
    return COMPLETED if statuses and all(status == Status.COMPLETED for status in statuses) else IN_PROGRESS


def _made_by(segments: Mapping[str, Any]) -> str | None:
    found = [made_by for made_by in map(of_segment, segments.values()) if made_by is not None]
    return f"{found[0].model} {found[0].model_version}" if found else None


def _row(case: SiteCase, names: Mapping[int, str]) -> CaseRow:
    revision = case.revision
    counts = {} if revision is None else revision.counts
    proposed = next((found.proposed_by for found in reversed(case.revisions) if found.proposed_by), None)
    last = case.history[-1] if case.history else None
    return CaseRow(
        case.name,
        case.status,
        "" if last is None else last.when,
        case.modality,
        {names.get(value, str(value)): count * case.image.voxel_ml for value, count in counts.items()},
        proposed,
        "" if last is None else last.comment or "",
    )
