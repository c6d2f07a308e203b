"""The site's data set: corrected cases are added to it, listed, opened again to be edited, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apformer.bundles import Label
from apformer.errors import APFormerError, ConfigError, InputError

from ..scene import to_volume
from .cards import Card
from .hosts import Worker
from .kept import KeptResults
from .opening import ReadCase, opened_case
from .parcel import NOT_OUTLINED, NOT_THERE, Parcel, not_handed_over
from .runs import DONE, Run
from .signals import Signal
from .state import State
from .wording import Checked, checked

if TYPE_CHECKING:  # the rooms of data sets are loaded when one is used
    from apformer.datasets import Problem, SiteCase, SiteDataset


OTHERS = (NOT_THERE, NOT_OUTLINED)
IGNORED = "unknown"  # voxels of which nobody knows what they are, as tables call them
_ANYBODY = "-"  # whose image it is does not matter yet
Ended = Callable[[BaseException | None], object]
"""Told on the main thread what was raised, None for nothing."""


@dataclass(frozen=True)
class CaseRow:
    """A case as a table shows it: nothing in it names the patient.

    Attributes:
        date: of the last change, ISO 8601, UTC.
        volumes_ml: by label, those that occur. unknown: names of the structures that were not outlined.
        proposed_by: the model that a person corrected, such as "liver-ct 1.1.0"; None when there was none.
    """

    name: str
    status: str
    date: str
    modality: str | None
    volumes_ml: Mapping[str, float]
    proposed_by: str | None
    comment: str
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Added:
    """What became of a case.

    Attributes:
        case: as it is in the data set now; where `known`, as it was before.
        notes: what the user should know, such as segments left out.
        known: nothing was changed, because the image is that case already: ask, then add it again with `correct`.
    """

    case: SiteCase
    notes: tuple[str, ...] = ()
    known: bool = False


class Collecting:
    """The data set whose folder the state names.

    Attributes:
        changed: another folder was chosen, or the cases changed.
        storing: a case that is being stored; None when none is.
    """

    def __init__(self, scene: Any, state: State, worker: Worker, kept: KeptResults) -> None:
        self.changed: Signal[()] = Signal()
        self.storing: Run | None = None
        self._scene, self._state, self._worker, self._kept = scene, state, worker, kept
        self._open: SiteDataset | None = None
        self._wanted: object = None  # the case that was asked for last

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

    def create_aside(self, folder: Path | str, labels: Sequence[Label] | Card, done: Ended) -> None:
        """The same in a thread of its own, see `change_aside`."""
        from apformer.datasets import SiteDataset

        table = labels.labels if isinstance(labels, Card) else labels

        def over(dataset: SiteDataset | None, error: BaseException | None) -> None:
            if dataset is not None:
                self._take(dataset)
            done(error)

        self._worker.aside(lambda: SiteDataset.create(folder, table), over)

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
        """Whether `add` can be tried; voxels are not looked at."""
        return checked(lambda: self._parcel(volume_node, segmentation_node, patient))

    def require(self, volume_node: Any, segmentation_node: Any, patient: str | None = None) -> None:
        """Raises what `add` would raise, of what can be told without looking at voxels."""
        self._ready_parcel(volume_node, segmentation_node, patient)

    def add(
        self,
        volume_node: Any,
        segmentation_node: Any,
        *,
        patient: str | None = None,
        status: str | None = None,
        comment: str | None = None,
        correct: bool = False,
        others: str | None = None,
    ) -> Run:
        """Have the worker copy the image and its corrected segmentation into the data set; the run's outcome is
        `Added`. What is stored is what both are now; voxels are handed over, hashed and packed off the main thread.

        What the model had proposed is kept as an earlier version of the labels, where it is still known. A case that
        was opened from the data set is corrected there.

        Args:
            patient: any identity, kept as a pseudonym; left out, the DICOM patient ID.
            status: "in progress", "completed" or "flagged"; left out, what the segments' statuses say.
            comment: left out, that of the flagged segments.
            correct: the image is known, and its labels are to be replaced.
            others: what the structures are that `lacking` names: NOT_THERE, which teaches that the image has none of
                them, or NOT_OUTLINED, which leaves open whether it has. Left out, as `others` says; what is given is
                remembered for the next case.

        Raises:
            InputError, ConfigError: image or labels cannot be used; no segment has the name of a label; no patient;
                another case is being stored. Why a run fails may be these, too, as for segments that overlap.
            OutputError: there is nowhere to hand the image over.
        """
        parcel = self._ready_parcel(volume_node, segmentation_node, patient)
        others = checked_others(others or self.others(volume_node))
        notes = parcel.notes
        run = Run(self._worker, "store", f"storing of {parcel.name}", lambda data: self._stored(data, notes))
        try:
            folder = self._worker.folder()
        except OSError as error:
            raise not_handed_over(error) from error
        kept = self._kept.of(segmentation_node, volume_node)
        who = self._state.who
        write = parcel.writer(folder, kept, status=status, who=who, comment=comment, correct=correct, others=others)
        if parcel.lacking and parcel.opened is None:  # of a case that is opened again, its own answer counts
            self._state.others = others
        self.storing = run
        run.ended.connect(self._over)
        run.hand_over(write, folder, parcel.stamp)
        return run

    def lacking(self, volume_node: Any, segmentation_node: Any, patient: str | None = None) -> list[str]:
        """Structures of the table that have no segment, of which a host asks what they are (`others` of `add`); none
        where nothing could be added."""
        try:
            return self._parcel(volume_node, segmentation_node, patient or _ANYBODY).lacking
        except APFormerError:
            return []

    def others(self, volume_node: Any) -> str:
        """What structures without a segment are, unless somebody says otherwise: what was said last; of a case that was
        opened from the data set and leaves some out, the same as before."""
        if self._leaves_out(volume_node):
            return NOT_OUTLINED
        return self._state.others if self._state.others in OTHERS else NOT_THERE

    def _leaves_out(self, volume_node: Any) -> bool:
        """Whether the image is that of a case which leaves structures out."""
        folder = self._state.site_folder
        opened = None if folder is None or volume_node is None else opened_case(volume_node, folder)
        try:
            revision = None if opened is None else self.dataset.case(opened).revision
        except APFormerError:  # it was removed meanwhile; what stores it says so
            return False
        return revision is not None and revision.labelled is not None

    def stop(self) -> None:
        """The program is being closed: a case is stored wholly or not at all."""
        if self.storing is not None:
            self.storing.cancel()

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
        return self._place(self._read(name)())

    def open_aside(self, name: str, done: Callable[[tuple[Any, Any] | None, BaseException | None], object]) -> None:
        """The same, read in a thread of its own: unpacking a CT takes seconds. `done` is told the nodes, or what was
        raised as by `open`; neither, where another case was asked for meanwhile.

        Raises:
            ConfigError: there is no such case.
        """
        read = self._read(name)
        self._wanted = wanted = object()

        def placed(case: ReadCase | None, error: BaseException | None) -> None:
            if wanted is not self._wanted:
                done(None, None)
                return
            try:
                done(None if case is None else self._place(case), error)
            except APFormerError as raised:
                done(None, raised)

        self._worker.aside(read, placed)

    def _read(self, name: str) -> Callable[[], ReadCase]:
        dataset = self.dataset
        case, table = dataset.case(name), dataset.labels
        return lambda: ReadCase.of(case, table)

    def _place(self, case: ReadCase) -> tuple[Any, Any]:
        volume_node, segmentation_node = case.place(self._scene)
        self._state.volume, self._state.segmentation = volume_node, segmentation_node
        return volume_node, segmentation_node

    def set_status(self, name: str, status: str, comment: str | None = None) -> None:
        """Change the status of a case.

        Raises:
            ConfigError: no such case or status, or it has no labels. OutputError: the folder cannot be written.
        """
        self.dataset.correct(name, status=status, who=self._state.who or None, comment=comment)
        self.changed.emit()

    def change_aside(self, change: Callable[[SiteDataset], object], done: Ended) -> None:
        """Change the data set in a thread of its own: its files are flushed to the disk, which takes seconds where that
        is a network drive, and another program's turn is waited for. `done` is told None, or what was raised.

            collecting.change_aside(lambda dataset: dataset.correct("case-0001", status="completed"), done)

        Raises:
            ConfigError: as `dataset`.
        """
        from apformer.datasets import SiteDataset

        root = self.dataset.root

        def over(_changed: object, error: BaseException | None) -> None:
            if error is None:
                self.changed.emit()
            done(error)

        self._worker.aside(lambda: change(SiteDataset.open(root)), over)

    def set_status_aside(self, name: str, status: str, done: Ended, comment: str | None = None) -> None:
        """As `set_status`, see `change_aside`."""
        who = self._state.who or None
        self.change_aside(lambda dataset: dataset.correct(name, status=status, who=who, comment=comment), done)

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

    def _ready_parcel(self, volume_node: Any, segmentation_node: Any, patient: str | None) -> Parcel:
        parcel = self._parcel(volume_node, segmentation_node, patient)
        if self.storing is not None:
            raise InputError(
                "Another case is being stored.", "One is stored after the other.", "Wait a moment, or cancel it."
            )
        return parcel

    def _parcel(self, volume_node: Any, segmentation_node: Any, patient: str | None) -> Parcel:
        dataset = self.dataset
        if segmentation_node is None or segmentation_node.GetScene() is not self._scene:
            to_volume(volume_node)  # what is wrong with the image is told first
            raise InputError(
                "No segmentation of the scene is chosen.",
                "A case is an image and its labels.",
                "Choose the corrected segmentation.",
            )
        return Parcel.of(dataset, volume_node, segmentation_node, patient)

    def _stored(self, data: dict[str, Any], notes: Sequence[str]) -> Added:
        dataset = self.dataset
        if data.get("present"):
            return Added(dataset.case(str(data["present"])), known=True)
        return Added(dataset.case(str(data["case"])), (*data.get("notes", ()), *notes))

    def _over(self, run: Run) -> None:
        self.storing = None
        if run.status == DONE and not run.outcome.known:
            self.changed.emit()


def checked_others(others: str) -> str:
    """Raises InputError for what is no answer to what structures without a segment are."""
    if others not in OTHERS:
        raise InputError(
            f"{others[:40]!r} does not say what structures without a segment are.",
            "They are not there, or were not outlined.",
            f"Choose one of: {', '.join(OTHERS)}.",
        )
    return others


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
        {names.get(value, IGNORED): count * case.image.voxel_ml for value, count in counts.items()},
        proposed,
        "" if last is None else last.comment or "",
        () if revision is None else tuple(name for value, name in names.items() if not revision.outlines(value)),
    )
