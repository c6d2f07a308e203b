"""A site's data set: a folder of cases that are added, corrected, removed and listed, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..bundles.labels import Label
from ..bundles.swap import put_in_place, remove_folder, staging, unwritable
from ..errors import ConfigError, InputError
from ..files import read_volume
from ..files.lock import WAIT_S, folder_lock
from ..volume import Volume
from . import table as tables
from .case import CASES_FOLDER, COMPLETED, IN_PROGRESS, Revision, SiteCase, case_name, check_note, check_status, now
from .case_files import is_same_image, stored_grid, write_case_image, write_case_labels
from .identity import file_hash, patient_code, voxel_hash
from .incoming import Incoming, doubts, read_image
from .index import INDEX_FILE, Index, parse, read_bytes
from .recovery import LOCK_FILE, announce, fulfil, recover
from .split import Split, check_usable, draw_split


class DuplicateCaseError(InputError):
    """The image is in the data set already, as `case`."""

    def __init__(self, case: SiteCase) -> None:
        super().__init__(
            f"This image is in the data set already: {case.name} ({case.status}).",
            "Two copies of one image would count twice, or stand on both sides of a split.",
            f"To change its labels, correct {case.name}, or add it again with --correct.",
        )
        self.case = case


class SiteDataset:
    """The data set in the folder `root`. Reading (`labels`, `cases`, `case`) takes the index as it is on disk at
    `open` or the last change made through this object; `reload` looks again. Changes lock the folder one by one.

    Args:
        wait_s: how long a change waits for another writer, in seconds.
    """

    def __init__(self, root: Path, content: bytes, wait_s: float = WAIT_S) -> None:
        self.root = root
        self._wait_s = wait_s
        self._content = content
        self._index = parse(content, root)
        self._recovered = False

    @classmethod
    def create(
        cls, root: Path | str, labels: Sequence[Label], wait_s: float = WAIT_S, salt: str | None = None
    ) -> SiteDataset:
        """Make an empty data set in a new or empty folder.

        Args:
            salt: 32 hexadecimal digits; by default drawn. A given one is for studies of public data, whose split
                shall be the same each time: with a salt that others know, pseudonyms hide little.

        Raises:
            ConfigError: the folder holds something.
            OutputError: it cannot be written.
        """
        root = Path(root).expanduser().absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(root, error) from error
        with folder_lock(root / LOCK_FILE, wait_s):
            taken = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
            if taken:
                raise ConfigError(
                    f"{root} is a data set already." if INDEX_FILE in taken else f"{root} is not empty ({taken[0]}).",
                    "A data set is made in a folder of its own; nothing was changed.",
                    "Add cases to it, or choose another folder.",
                )
            content = Index.new(root, tuple(labels), salt).save()
        return cls(root, content, wait_s)

    @classmethod
    def open(cls, root: Path | str, wait_s: float = WAIT_S) -> SiteDataset:
        """The data set in `root`; only its index is read.

        Raises:
            ConfigError: there is none, it is damaged, or a newer version of this program wrote it.
        """
        root = Path(root).expanduser().absolute()
        return cls(root, read_bytes(root), wait_s)

    @property
    def index(self) -> Index:
        return self._index

    @property
    def labels(self) -> tuple[Label, ...]:
        """The label table: the values in every label map of the data set, and their names."""
        return self._index.labels

    @property
    def split(self) -> Split | None:
        """The frozen split; None before the first training."""
        return self._index.split

    def cases(self, status: str | None = None) -> list[SiteCase]:
        """The cases of that status, or all, in the order they were added."""
        return [case for case in self._index.cases.values() if status in (None, case.status)]

    def case(self, name: str) -> SiteCase:
        """The case of that name; ConfigError when there is none."""
        found = next((case for case in self._index.cases.values() if case.name == name), None)
        if found is None:
            raise ConfigError(
                f"The data set has no case {name[:60]!r}.",
                "Cases have names such as case-0001.",
                f"See `apformer dataset list {self.root}`.",
            )
        return found

    def reload(self) -> None:
        """Take the index as it is on disk now."""
        content = read_bytes(self.root)
        if content != self._content:
            self._index, self._content = parse(content, self.root), content

    def add(
        self,
        image: Path | Volume,
        labels: Path | Volume | None = None,
        *,
        status: str | None = None,
        patient: str | None = None,
        mapping: Mapping[str, str | None] | None = None,
        names: Mapping[int, str] | None = None,
        modality: str | None = None,
        series_uid: str | None = None,
        skip: Sequence[str] = (),
        proposed_by: str | None = None,
        who: str | None = None,
        comment: str | None = None,
        correct: bool = False,
        collection: str | None = None,
        licence: str | None = None,
        threshold: bool = False,
        outlined: Sequence[str] | None = None,
    ) -> tuple[SiteCase, tuple[str, ...]]:
        """Store an image and its labels as a new case, and say what the user should know.

        Args:
            labels: matched by name: those of a .seg.nrrd, or `names`; otherwise the values are the table's.
            status: None means completed for labels that no model proposed, else in progress.
            patient: any identity, kept as a pseudonym; None: the DICOM patient ID, else the name of the file.
            mapping: see `table.read_mapping`.
            series_uid, skip: see `read_volume`.
            correct: the image must be a known one, whose labels are then replaced.
            threshold: of a mask that is a picture, JPEG too, take what is at least half white.
            outlined: names of the structures that were outlined, besides those that occur; all others are unknown in
                this case, not absent. None: all of the table; with `correct`, as before.

        Raises:
            DuplicateCaseError: the image is there already and `correct` is False.
            InputError: the image or labels cannot be used.
            ConfigError: unknown labels, or a status that does not fit.
            OutputError: the folder cannot be written, the disk is full, another writer holds it.
        """
        self.reload()
        volume, identity, notes = read_image(image, series_uid, patient, skip)
        array = None
        if labels is not None:
            array, remarks = Incoming(labels, names, mapping, threshold).read(volume, self.labels)
            notes += remarks
        voxels, code = voxel_hash(volume), patient_code(identity, self._index.salt)
        untouched = status is None and correct and array is None  # only a comment is added
        if status is None:
            status = COMPLETED if array is not None and proposed_by is None else IN_PROGRESS
        _check_completed(check_status(status), array is not None or correct)
        who, comment = check_note(who, "name"), check_note(comment, "comment")
        proposed_by = check_note(proposed_by, "model's name")
        modality = check_note(modality or volume.modality, "modality")
        notes += doubts(volume, modality)
        with self._writing():
            known = self.find(volume, voxels)
            if known is not None and correct:
                wanted = known.status if untouched else status
                return self._corrected(known, array, wanted, proposed_by, who, comment, outlined), notes
            if known is not None:
                raise DuplicateCaseError(known)
            if correct:
                raise InputError(
                    "No case of the data set has this image.", "There is nothing to correct.", "Add it as a new case."
                )
            number = self._index.next_number
            folder = self.root / CASES_FOLDER / case_name(number)
            revisions: tuple[Revision, ...] = ()
            announce(self.root, folder)
            with staging(folder) as stage:
                stored = write_case_image(stage, volume, voxels)
                if array is not None:
                    on_grid = volume.with_array(array)
                    path = write_case_labels(stage, 1, on_grid, stored, self.labels)
                    labelled = tables.labelled(self.labels, array, outlined)
                    revisions = (_revision(1, path, array, who, proposed_by, comment, labelled),)
                put_in_place(stage, folder)
            case = SiteCase(
                root=self.root,
                number=number,
                patient=code,
                status=status,
                modality=modality,
                image=stored,
                revisions=revisions,
                current=len(revisions),
                history=(),
                source=volume.source.kind,
                collection=check_note(collection, "collection's name"),
                licence=check_note(licence, "licence"),
            ).with_event("added", who, comment)
            self._save(self._index.with_case(case))  # last: until here the case does not exist, from here it does
        return case, notes

    def correct(
        self,
        name: str,
        labels: Path | Volume | None = None,
        *,
        restore: int | None = None,
        status: str | None = None,
        mapping: Mapping[str, str | None] | None = None,
        names: Mapping[int, str] | None = None,
        proposed_by: str | None = None,
        who: str | None = None,
        comment: str | None = None,
        threshold: bool = False,
        outlined: Sequence[str] | None = None,
        tell: Callable[[str], None] = lambda note: None,
    ) -> SiteCase:
        """Give a case new labels, or restore version `restore` of them, or change its status; all versions are kept.

        The status stays as it was unless one is given, and so does what was `outlined` (see `add`), but for structures
        that now occur. `tell` gets what the user should know of the labels.

        Raises:
            InputError, ConfigError, OutputError: as `add`.
        """
        self.reload()
        case = self.case(name)
        array = None
        if labels is not None:
            array, notes = Incoming(labels, names, mapping, threshold).read(stored_grid(case), self.labels)
            for note in notes:
                tell(note)
        who, comment = check_note(who, "name"), check_note(comment, "comment")
        if restore is not None and outlined is not None:
            raise ConfigError(
                "Older labels are restored with what was outlined in them.",
                "Both were asked for: the older labels, and another set of outlined structures.",
                "Restore first, then say what was outlined.",
            )
        with self._writing():
            case = self.case(name)
            wanted = check_status(status or case.status)
            if restore is None:
                proposed_by = check_note(proposed_by, "model's name")
                return self._corrected(case, array, wanted, proposed_by, who, comment, outlined)
            if restore not in {revision.number for revision in case.revisions}:
                raise ConfigError(
                    f"{name} has no version {restore} of its labels.",
                    "There is nothing to restore.",
                    f"See `apformer dataset show {self.root} {name}`.",
                )
            case = case.with_event("restored", who, comment, current=restore, status=wanted)
            self._save(self._index.with_case(case))
        return case

    def remove(self, name: str) -> None:
        """Remove a case, its images and all versions of its labels.

        Raises:
            ConfigError: there is no such case.
            OutputError: the folder cannot be written. Files that could not be deleted are at the next change.
        """
        with self._writing():
            case = self.case(name)
            self._save(self._index.without_case(case.number))  # first: an index never points to missing files
            if case.folder.is_symlink() or case.folder.exists():
                remove_folder(case.folder)

    def add_label(self, name: str, value: int | None = None, color: tuple[int, int, int] | None = None) -> Label:
        """Add a label to the table; ConfigError when the name or value is taken. It was not outlined in the cases that
        there are: nobody could."""
        with self._writing():
            self._save(self._index.with_labels(tables.with_label(self.labels, name, value, color)))
        return self.labels[-1]

    def rename_label(self, old: str, new: str) -> Label:
        """Change the name of a label; its voxels and value stay. ConfigError when there is none, or `new` is taken."""
        with self._writing():
            label = tables.find(self.labels, old)
            if label is None:
                raise ConfigError(
                    f"The label table has no {old!r}.",
                    "There is nothing to rename.",
                    f"It has: {', '.join(label.name for label in self.labels)}.",
                )
            others = [other for other in self.labels if other is not label]
            tables.with_label(others, new, label.value)  # refuses a name that cannot be one
            renamed = replace(label, name=new)
            self._save(replace(self._index, labels=tuple(renamed if x is label else x for x in self.labels)))
        return renamed

    def freeze_split(self, *, redraw: bool = False, check: Callable[[], None] = lambda: None) -> Split:
        """The split to train with: drawn at the first call, later only extended by new patients, and kept on disk.

        Args:
            redraw: draw a new one, from all patients; figures from before cannot be compared with those after.
            check: called while it waits for another writer; stops by raising.

        Raises:
            ConfigError: too few patients, or too few cases left on one side.
            OutputError: the folder cannot be written.
        """
        self.reload()
        split = self.planned_split(redraw=redraw)
        if split != self.split:
            with self._writing(check):
                split = self.planned_split(redraw=redraw)
                self._save(replace(self._index, split=split))
        return split

    def planned_split(self, *, redraw: bool = False) -> Split:
        """What `freeze_split` would give, without writing it."""
        completed = self.cases(COMPLETED)
        patients = {case.patient for case in completed}
        kept = None if redraw else self.split
        split = draw_split(patients, self._index.salt) if kept is None else kept.extended(patients, self._index.salt)
        check_usable(split, completed)
        return split

    def find(self, image: Volume, voxels: str) -> SiteCase | None:
        """The case with these voxels (their `voxel_hash`) in the same place."""
        return next((case for case in self.cases() if is_same_image(case.image, image, voxels)), None)

    def has_labels(self, case: SiteCase, array: np.ndarray) -> bool:
        """Whether the labels of `case` are these voxels exactly."""
        path = case.labels_path
        if path is None or case.revision is None or case.revision.counts != tables.count_labels(array):
            return False
        try:
            return np.array_equal(read_volume(path).array, array)
        except InputError:  # missing or damaged: what is given now takes its place
            return False

    def would_change(self, case: SiteCase, incoming: Incoming, outlined: Sequence[str] | None = None) -> bool:
        """Whether correcting `case` with these labels would make a new version; raises as `correct`."""
        array = incoming.read(stored_grid(case), self.labels)[0]
        return not self.has_labels(case, array) or self._labelled(case, array, outlined) != _labelled_in(case)

    def _labelled(self, case: SiteCase, array: np.ndarray, outlined: Sequence[str] | None) -> tuple[int, ...] | None:
        """What is outlined in new labels of a case; where nothing is said of it, what was, and what occurs."""
        before = _labelled_in(case)
        if outlined is None and before is not None:
            named = {label.value: label.name for label in self.labels}
            outlined = [named[value] for value in before if value in named]
        return tables.labelled(self.labels, array, outlined)

    def _corrected(
        self,
        case: SiteCase,
        array: np.ndarray | None,
        status: str,
        proposed_by: str | None,
        who: str | None,
        comment: str | None,
        outlined: Sequence[str] | None,
    ) -> SiteCase:
        _check_completed(status, array is not None or case.current > 0)
        if array is None and outlined is not None:
            array = _present_labels(case)
        labelled = None if array is None else self._labelled(case, array, outlined)
        if array is None or (self.has_labels(case, array) and labelled == _labelled_in(case)):
            case = case.with_event("described", who, comment, status=status)
        else:
            number = max((revision.number for revision in case.revisions), default=0) + 1
            image = stored_grid(case)
            _ = case.image_path  # refuses a folder that is a link to somewhere else, before anything is written to it
            recover(self._index)  # a version that was written and not counted would be in the way
            announce(self.root, case.folder / f"labels-{number}")
            path = write_case_labels(case.folder, number, image.with_array(array), case.image, self.labels)
            revision = _revision(number, path, array, who, proposed_by, comment, labelled)
            revisions = (*case.revisions, revision)
            case = case.with_event("corrected", who, comment, status=status, revisions=revisions, current=number)
        self._save(self._index.with_case(case))
        return case

    @contextmanager
    def _writing(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        with folder_lock(self.root / LOCK_FILE, self._wait_s, check) as taken_over:
            self.reload()
            if taken_over or not self._recovered:
                recover(self._index)
                self._recovered = True
            try:
                yield
            except OSError as error:
                raise unwritable(self.root, error) from error

    def _save(self, index: Index) -> None:
        self._content = index.save()
        self._index = index
        fulfil(self.root)


def _revision(
    number: int,
    path: Path,
    array: np.ndarray,
    who: str | None,
    proposed_by: str | None,
    comment: str | None,
    labelled: tuple[int, ...] | None,
) -> Revision:
    counts = tables.count_labels(array)
    return Revision(number, path.name, file_hash(path), counts, who, now(), proposed_by, comment, labelled)


def _labelled_in(case: SiteCase) -> tuple[int, ...] | None:
    return None if case.revision is None else case.revision.labelled


def _present_labels(case: SiteCase) -> np.ndarray:
    """The labels that count, read back: what is said of them changes, not they."""
    if case.labels_path is None:
        raise ConfigError(
            f"{case.name} has no labels.", "What was outlined in it is said of labels.", "Give its labels, too."
        )
    return read_volume(case.labels_path).array


def _check_completed(status: str, has_labels: bool) -> None:
    if status == COMPLETED and not has_labels:
        raise ConfigError(
            "A case without labels cannot be completed.",
            "Completed cases are trained on.",
            "Give its labels, or add it as in progress.",
        )
