"""The image series in a folder of DICOM files: which files belong together, and what can be chosen."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...volume import Source
from .file import DicomFile, might_be_dicom, open_dicom
from .separate import Part, separate
from .slice import Slice, slices_of

# Slices of one series have these in common, whatever an anonymiser did to its UIDs.
_IN_COMMON = (
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "PatientID",
    "SeriesTime",
    "Manufacturer",
)
_REFERENCES = ("StudyInstanceUID", "FrameOfReferenceUID")
_FEWEST_JOINED = 3  # two slices are even whatever they are


@dataclass(frozen=True)
class Series:
    """A series of images in a folder that makes one volume; `slices` counts the frames of multi-frame files too.

    `uid` is what it is chosen by: the SeriesInstanceUID, with a number after a # where a series holds several volumes;
    `description` then says what sets them apart.
    """

    uid: str
    description: str
    modality: str
    slices: int
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.uid} ({self.description or 'no description'}, {self.modality}, {self.slices} slices)"


@dataclass(frozen=True)
class Found:
    """A series with the slices it is read from."""

    series: Series
    part: Part

    @property
    def described(self) -> str:
        return self.part.slices[0].file.text("SeriesDescription")


def find_series(folder: Path, skip: Sequence[str] = ()) -> tuple[list[Found], tuple[str, ...]]:
    """The image series in `folder` and its subfolders, by description, and notes about `skip`; segmentations and
    reports are left out.

    Args:
        skip: files to leave out: names, paths or patterns such as "loc*.dcm".

    Raises:
        InputError: the folder cannot be listed, or a DICOM file in it is damaged.
    """
    files, notes = _files(folder, skip)
    found: list[Found] = []
    for uid, (slices, told) in _grouped(files).items():
        parts = separate(slices)
        for n, part in enumerate(parts, 1):
            chosen_by = uid if len(parts) == 1 else f"{uid}#{n}"
            part = Part(part.slices, part.words, (*told, *part.notes))
            found.append(Found(_series(chosen_by, part), part))
    by_name = sorted(found, key=lambda one: (one.described, one.series.uid.partition("#")[0]))  # parts in their order
    return by_name, notes


def patient_of(source: Source, path: Path) -> str | None:
    """The PatientID of what was read from `path`; None where there is none."""
    candidates = source.dicom_files or (sorted(path.rglob("*")) if path.is_dir() else (path,))
    for candidate in candidates:
        if not candidate.is_file() or not might_be_dicom(candidate):
            continue
        try:
            file = open_dicom(candidate)
        except InputError:  # one that was skipped
            continue
        if file.is_image and file.text("SeriesInstanceUID") == (source.series_uid or ""):
            return file.text("PatientID") or None
    return None


def _series(uid: str, part: Part) -> Series:
    first = part.slices[0].file
    return Series(
        uid=uid,
        description=", ".join(filter(None, (first.text("SeriesDescription"), part.words))),
        modality=first.modality or "unknown modality",
        slices=len(part.slices),
        files=tuple(dict.fromkeys(one.file.path for one in part.slices)),
    )


def _files(folder: Path, skip: Sequence[str]) -> tuple[list[DicomFile], tuple[str, ...]]:
    unused = dict.fromkeys(skip)
    try:
        candidates = sorted(path for path in folder.rglob("*") if path.is_file())
        files = []
        for path in candidates:
            matching = [pattern for pattern in skip if _matches(path, folder, pattern)]
            for pattern in matching:
                unused.pop(pattern, None)
            if not matching and might_be_dicom(path):
                files.append(open_dicom(path))
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} could not be read: {error.strerror or error}.",
            "Its series are not known.",
            "Check the path and the permissions.",
        ) from error
    notes = tuple(f"{folder} has no file {pattern} to skip" for pattern in unused)
    return [file for file in files if file.is_image], notes


def _matches(path: Path, folder: Path, pattern: str) -> bool:
    names = (path.name, str(path), path.relative_to(folder).as_posix())
    return any(name == pattern or fnmatch.fnmatch(name, pattern) for name in names) or _same_file(path, pattern)


def _same_file(path: Path, named: str) -> bool:
    try:
        return path.resolve() == Path(named).expanduser().resolve()
    except (OSError, ValueError, RuntimeError):
        return False


Grouped = dict[str, tuple[list[Slice], tuple[str, ...]]]  # UID -> slices, what to tell


def _grouped(files: Sequence[DicomFile]) -> Grouped:
    by_uid: dict[str, list[DicomFile]] = defaultdict(list)
    nameless: dict[Hashable, list[DicomFile]] = defaultdict(list)
    for file in files:
        uid = file.text("SeriesInstanceUID")
        if uid:
            by_uid[uid].append(file)
        else:
            nameless[_in_common(file, _REFERENCES)].append(file)
    grouped: Grouped = {}
    for members, note in _joined(by_uid):
        grouped[members[0].text("SeriesInstanceUID")] = ([one for file in members for one in slices_of(file)], note)
    for n, members in enumerate(nameless.values(), 1):
        note = (
            "the files have no SeriesInstanceUID; they were taken as one series by what their headers have in common",
        )
        grouped["no-uid" if n == 1 else f"no-uid-{n}"] = ([one for file in members for one in slices_of(file)], note)
    return grouped


def _joined(by_uid: dict[str, list[DicomFile]]) -> Iterator[tuple[list[DicomFile], tuple[str, ...]]]:
    """Series as they are, but single slices that anonymisers gave a series each together with those of their stack."""
    alone = [members[0] for members in by_uid.values() if len(members) == 1 and members[0].frames == 1]
    joined: set[int] = set()
    for references in (_REFERENCES, _REFERENCES[:1], _REFERENCES[1:]):
        groups: dict[Hashable, list[DicomFile]] = defaultdict(list)
        for file in alone:
            if id(file) not in joined:
                groups[_in_common(file, references)].append(file)
        for group in groups.values():
            if len(group) >= _FEWEST_JOINED and _refers(group, references) and _is_one_stack(group):
                joined.update(map(id, group))
                yield (
                    group,
                    (
                        f"each of the {len(group)} slices has a SeriesInstanceUID of its own; they were joined, since "
                        "they form one even stack of one study",
                    ),
                )
    for members in by_uid.values():
        if id(members[0]) not in joined:
            yield members, ()


def _refers(group: Sequence[DicomFile], references: Sequence[str]) -> bool:
    """True when the files name a study or frame of reference in common, and the other one, if it is left out of
    account, was made anew for every file as the UID of the series was."""
    others = [keyword for keyword in _REFERENCES if keyword not in references]
    anew = all(len({file.text(keyword) for file in group}) == len(group) for keyword in others)
    return anew and any(group[0].text(keyword) for keyword in references)


def _is_one_stack(group: Sequence[DicomFile]) -> bool:
    slices = [one for file in group for one in slices_of(file)]
    return all(part.is_clean and len(part.slices) >= _FEWEST_JOINED for part in separate(slices)) and not any(
        one.is_localizer for one in slices
    )


def _in_common(file: DicomFile, references: Sequence[str]) -> Hashable:
    geometry = [
        _rounded(file, keyword, digits) for keyword, digits in (("ImageOrientationPatient", 3), ("PixelSpacing", 4))
    ]
    return (*(file.text(keyword) for keyword in (*_IN_COMMON, *references)), file.size, *geometry)


def _rounded(file: DicomFile, keyword: str, digits: int) -> Hashable:
    value = file.get(keyword)
    try:
        return tuple(np.round([float(number) for number in value], digits) + 0.0) if value else None
    except (TypeError, ValueError):
        return str(value)
