"""One case of a site's data set, as the index describes it: its image, every version of its labels, its history."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..bundles.fields import Fields, check_integer, check_number, malformed
from ..bundles.labels import HIGHEST_LABEL
from ..errors import ConfigError

IN_PROGRESS, COMPLETED, FLAGGED = "in progress", "completed", "flagged"
STATUSES = (IN_PROGRESS, COMPLETED, FLAGGED)
# In label maps of cases: voxels of which nobody knows what they are, unless the table has a label of that value, as it
# could have before there was this.
UNKNOWN = 255
CASES_FOLDER = "cases"
LONGEST_NOTE = 500
_MOST_NUMBER = 999_999_999
_MOST_REVISIONS = 10_000
_MOST_EVENTS = 100_000
_LONGEST_AXIS = 1 << 20
_MOST_VOXELS = 1 << 36  # 64 GiB as uint8: beyond any image, below what makes arithmetic or an allocation run away
_MOST_CHANNELS = 1024
_LARGEST_MM = 1e7
_LARGEST_INTENSITY = 1.7e308  # any finite double but the last few
_IMAGE_FILE = re.compile(r"image\.(nii\.gz|nrrd|png)")
_LABELS_FILE = re.compile(r"labels-[1-9]\d{0,4}\.(nii\.gz|nrrd|png)")
_PATIENT = re.compile(r"p-[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def now() -> str:
    """The time as it stands in the index: UTC, to the second. It is shown, and nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_note(text: str | None, kind: str) -> str | None:
    """A name or comment of one line, without control characters; None for a blank one.

    Raises:
        ConfigError: too long, or not printable.
    """
    text = (text or "").strip()
    if len(text) > LONGEST_NOTE or not text.isprintable():
        raise ConfigError(
            f"The {kind} is longer than {LONGEST_NOTE} characters, or has line breaks or control characters.",
            "It is kept in the index, one line each.",
            "Shorten it to one plain line.",
        )
    return text or None


def check_status(status: str) -> str:
    """Raises ConfigError when `status` is not one of STATUSES."""
    if status not in STATUSES:
        raise ConfigError(
            f"{status!r} is no status of a case.",
            "A case is in progress, completed (it may be trained on) or flagged (look at it again).",
            f"Write one of: {', '.join(STATUSES)}.",
        )
    return status


@dataclass(frozen=True)
class StoredImage:
    """The image file of a case, and what is known of it without reading it.

    `sha256` is of the file, `voxels` of the values (see `voxel_hash`); `ijk_to_ras` is 4x4 in mm, row by row; `low`
    and `high` are the smallest and largest value.
    """

    file: str
    sha256: str
    voxels: str
    shape_kji: tuple[int, int, int]
    channels: int
    dtype: str
    ijk_to_ras: tuple[float, ...]
    low: float
    high: float

    @property
    def matrix(self) -> np.ndarray:
        return np.array(self.ijk_to_ras).reshape(4, 4)

    @property
    def spacing_ijk(self) -> tuple[float, float, float]:
        """mm"""
        i, j, k = (float(step) for step in np.linalg.norm(self.matrix[:3, :3], axis=0))
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(self.matrix[:3, :3]))) / 1000.0

    @property
    def is_picture(self) -> bool:
        return self.file.endswith(".png")

    def as_dict(self) -> dict[str, Any]:
        return vars(self) | {"shape_kji": list(self.shape_kji), "ijk_to_ras": list(self.ijk_to_ras)}

    @staticmethod
    def from_fields(fields: Fields) -> StoredImage:
        fields.only(StoredImage.__dataclass_fields__)
        where = fields.where
        shape = [check_integer(n, 1, _LONGEST_AXIS, f"{where}, 'shape_kji'") for n in fields.items("shape_kji", 3)]
        channels = fields.integer("channels", 1, _MOST_CHANNELS)
        if len(shape) != 3 or shape[0] * shape[1] * shape[2] * channels > _MOST_VOXELS:
            raise malformed(f"{where}, 'shape_kji' is not the size of an image.")
        items = fields.items("ijk_to_ras", 16)
        matrix = tuple(check_number(n, -_LARGEST_MM, _LARGEST_MM, f"{where}, 'ijk_to_ras'") for n in items)
        if len(matrix) != 16 or not abs(float(np.linalg.det(np.array(matrix).reshape(4, 4)))) > 0:
            raise malformed(f"{where}, 'ijk_to_ras' does not place voxels.")
        return StoredImage(
            file=_matching(fields, "file", _IMAGE_FILE),
            sha256=_matching(fields, "sha256", _DIGEST),
            voxels=_matching(fields, "voxels", _DIGEST),
            shape_kji=(shape[0], shape[1], shape[2]),
            channels=channels,
            dtype=fields.text("dtype", 16),
            ijk_to_ras=matrix,
            low=fields.number("low", -_LARGEST_INTENSITY, _LARGEST_INTENSITY),
            high=fields.number("high", -_LARGEST_INTENSITY, _LARGEST_INTENSITY),
        )


@dataclass(frozen=True)
class Revision:
    """One version of a case's labels.

    `counts`: label value -> voxels; `proposed_by`: the model it came from. `labelled`: values of the structures that
    were outlined in it, also where there is none of them; what others are there is unknown. None: all of the table.
    """

    number: int
    file: str
    sha256: str
    counts: dict[int, int]
    who: str | None
    when: str
    proposed_by: str | None
    comment: str | None
    labelled: tuple[int, ...] | None = None

    def outlines(self, value: int) -> bool:
        """Whether the structure of that value was outlined, so that no voxel of it tells that there is none."""
        return self.labelled is None or value in self.labelled

    def as_dict(self) -> dict[str, Any]:
        data = vars(self) | {"counts": {str(value): count for value, count in self.counts.items()}}
        return data | {"labelled": list(self.labelled)} if self.labelled is not None else _without(data, "labelled")

    @staticmethod
    def from_fields(fields: Fields) -> Revision:
        fields.only(Revision.__dataclass_fields__)
        counts = fields.section("counts")
        if len(counts.data) > HIGHEST_LABEL or not all(value.isascii() and value.isdigit() for value in counts.data):
            raise malformed(f"{counts.where} does not count label values.")
        revision = Revision(
            number=fields.integer("number", 1, _MOST_REVISIONS),
            file=_matching(fields, "file", _LABELS_FILE),
            sha256=_matching(fields, "sha256", _DIGEST),
            counts={
                check_integer(int(value[:9]), 1, HIGHEST_LABEL, counts.where): counts.integer(value, 1, _MOST_VOXELS)
                for value in counts.data
            },
            who=_optional(fields, "who"),
            when=_matching(fields, "when", _WHEN),
            proposed_by=_optional(fields, "proposed_by"),
            comment=_optional(fields, "comment"),
            labelled=_labelled(fields) if fields.has("labelled") else None,
        )
        hidden = [value for value in revision.counts if value != UNKNOWN and not revision.outlines(value)]
        if hidden:
            raise malformed(f"{fields.where}, 'labelled' leaves out {hidden[0]}, of which there are voxels.")
        return revision


@dataclass(frozen=True)
class Event:
    """What was done to a case: `what` is "added", "corrected", "restored" or "described"; then its state after it."""

    what: str
    when: str
    who: str | None
    status: str
    revision: int
    comment: str | None

    @staticmethod
    def from_fields(fields: Fields) -> Event:
        fields.only(Event.__dataclass_fields__)
        return Event(
            what=fields.text("what", 32),
            when=_matching(fields, "when", _WHEN),
            who=_optional(fields, "who"),
            status=_status(fields),
            revision=fields.integer("revision", 0, _MOST_REVISIONS),
            comment=_optional(fields, "comment"),
        )


@dataclass(frozen=True)
class SiteCase:
    """A case: its files lie in `root`/cases/`name`.

    `patient` is a pseudonym; `current` the number of the revision that counts, 0 while there are no labels;
    `source` says what the image was ("dicom", "nifti", ...); `collection` and `licence` come from an imported set.
    """

    root: Path
    number: int
    patient: str
    status: str
    modality: str | None
    image: StoredImage
    revisions: tuple[Revision, ...]
    current: int
    history: tuple[Event, ...]
    source: str
    collection: str | None = None
    licence: str | None = None

    @property
    def name(self) -> str:
        return case_name(self.number)

    @property
    def folder(self) -> Path:
        return self.root / CASES_FOLDER / self.name

    @property
    def image_path(self) -> Path:
        return self._inside(self.folder / self.image.file)

    @property
    def labels_path(self) -> Path | None:
        """The label map that counts; None while there is none."""
        revision = self.revision
        return None if revision is None else self.revision_path(revision)

    @property
    def revision(self) -> Revision | None:
        return next((revision for revision in self.revisions if revision.number == self.current), None)

    @property
    def proposal(self) -> Revision | None:
        """What a model proposed before the present labels were made, when both are kept."""
        earlier = [found for found in self.revisions if found.proposed_by and found.number < self.current]
        return earlier[-1] if earlier else None

    def revision_path(self, revision: Revision) -> Path:
        return self._inside(self.folder / revision.file)

    def _inside(self, path: Path) -> Path:
        """Names in the index cannot lead outside; a link planted in the folder could."""
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError(
                f"{path} is a link to a place outside the data set.",
                "A data set is read from its own folder only.",
                f"Put the file itself there, or remove the case: `apformer dataset remove {self.root} {self.name}`.",
            )
        return path

    def outlining(self, values: tuple[int, ...]) -> SiteCase:
        """The case with these values as what was outlined where that is not said."""
        revisions = (r if r.labelled is not None else replace(r, labelled=values) for r in self.revisions)
        return replace(self, revisions=tuple(revisions))

    def with_event(self, what: str, who: str | None, comment: str | None, **changes: Any) -> SiteCase:
        """The case after `changes`, remembered in its history."""
        changed = replace(self, **changes)
        event = Event(what, now(), who, changed.status, changed.current, comment)
        return replace(changed, history=(*self.history, event))

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the index."""
        return {
            "number": self.number,
            "patient": self.patient,
            "status": self.status,
            "modality": self.modality,
            "image": self.image.as_dict(),
            "revisions": [revision.as_dict() for revision in self.revisions],
            "current": self.current,
            "history": [vars(event) for event in self.history],
            "source": self.source,
            "collection": self.collection,
            "licence": self.licence,
        }

    @staticmethod
    def from_fields(fields: Fields, root: Path) -> SiteCase:
        """The case that a JSON object describes; BundleError (to be reworded) when it does not describe one."""
        fields.only(set(SiteCase.__dataclass_fields__) - {"root"})
        where = fields.where
        revisions = fields.items("revisions", _MOST_REVISIONS)
        history = fields.items("history", _MOST_EVENTS)
        case = SiteCase(
            root=root,
            number=fields.integer("number", 1, _MOST_NUMBER),
            patient=_matching(fields, "patient", _PATIENT),
            status=_status(fields),
            modality=_optional(fields, "modality"),
            image=StoredImage.from_fields(fields.section("image")),
            revisions=tuple(
                Revision.from_fields(Fields(item, f"{where}, revisions[{n}]")) for n, item in enumerate(revisions)
            ),
            current=fields.integer("current", 0, _MOST_REVISIONS),
            history=tuple(Event.from_fields(Fields(item, f"{where}, history[{n}]")) for n, item in enumerate(history)),
            source=fields.text("source", 32),
            collection=_optional(fields, "collection"),
            licence=_optional(fields, "licence"),
        )
        numbers = [revision.number for revision in case.revisions]
        if numbers != sorted(set(numbers)) or len({revision.file for revision in case.revisions}) < len(numbers):
            raise malformed(f"{where} numbers the versions of its labels twice or out of order.")
        if case.current and case.revision is None:
            raise malformed(f"{where} has no version {case.current} of its labels.")
        if case.status == COMPLETED and not case.current:
            raise malformed(f"{where} is completed and has no labels.")
        return case


def case_name(number: int) -> str:
    """ "case-0007": says nothing of the patient, and is never used twice in a data set."""
    return f"case-{number:04d}"


def check_patient(value: object, where: str) -> str:
    """`value` when it is a patient's pseudonym; BundleError (to be reworded) otherwise."""
    if not isinstance(value, str) or not _PATIENT.fullmatch(value):
        raise malformed(f"{where} is not a patient's code.")
    return value


def check_when(fields: Fields, name: str) -> str:
    return _matching(fields, name, _WHEN)


def _labelled(fields: Fields) -> tuple[int, ...]:
    where = f"{fields.where}, 'labelled'"
    values = tuple(check_integer(n, 1, HIGHEST_LABEL, where) for n in fields.items("labelled", HIGHEST_LABEL))
    if list(values) != sorted(set(values)):
        raise malformed(f"{where} names a value twice or out of order.")
    return values


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def _matching(fields: Fields, name: str, pattern: re.Pattern[str]) -> str:
    text = fields.text(name, 100)
    if not pattern.fullmatch(text):
        raise malformed(f"{fields.where}, '{name}' may not be '{text[:60]}'.")
    return text


def _optional(fields: Fields, name: str) -> str | None:
    return fields.text(name, LONGEST_NOTE) if fields.has(name) else None


def _status(fields: Fields) -> str:
    status = fields.text("status", 32)
    if status not in STATUSES:
        raise malformed(f"{fields.where}, 'status' may not be '{status}'.")
    return status
