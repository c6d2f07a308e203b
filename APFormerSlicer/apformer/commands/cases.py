"""Which images a command line means, and a name for each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.dicom.mark import looks_like_dicom
from ..files.formats import IMAGE_SUFFIXES, suffix_of

_PICTURES = (".png", ".jpg", ".jpeg")
_DICOM = (".dcm", ".ima")


@dataclass(frozen=True)
class Case:
    """One image to segment: a file, or a folder with DICOM files.

    `stem` names it among the results, and is unique in its batch.
    """

    source: Path
    stem: str

    @property
    def is_picture(self) -> bool:
        return suffix_of(self.source) in _PICTURES


def stem_of(path: Path) -> str:
    """The name without its format: "a" for "a.nii.gz" and for a folder "a"."""
    path = Path(os.path.abspath(path))  # "." and ".." have no name of their own
    if path.is_dir() or suffix_of(path) not in IMAGE_SUFFIXES:
        return path.name
    return path.name[: -len(suffix_of(path))] or path.name


def find_cases(inputs: Sequence[Path]) -> tuple[list[Case], bool]:
    """The cases that `inputs` name, and whether they are a batch: several inputs, or a folder of images.

    A folder with DICOM files is one case. Any other folder stands for the image files in it and the DICOM folders
    below it.

    Raises:
        InputError: a folder holds no image.
    """
    sources: list[tuple[Path, Path]] = []  # a source, and the folder that its stem is told from
    batch = len(inputs) > 1
    for given in inputs:
        if given.is_dir() and not _holds_dicom(given):
            found = list(_images_in(given))
            if not found:
                raise InputError(
                    f"{given} holds no image that can be read.",
                    "There is nothing to segment.",
                    f"Name a folder with DICOM files, or with files ending in {', '.join(IMAGE_SUFFIXES)}.",
                )
            sources += [(source, given) for source in found]
            batch = True
        else:
            sources.append((given, given.parent))
    distinct = {os.path.abspath(source): (source, top) for source, top in sources}
    chosen = list(distinct.values())
    stems = _unique_stems(chosen)
    return [Case(source, stem) for (source, _), stem in zip(chosen, stems, strict=True)], batch


def _images_in(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _dicom_folders(entry)
        elif suffix_of(entry) in IMAGE_SUFFIXES and suffix_of(entry) != ".seg.nrrd":  # that is no image
            yield entry


def _dicom_folders(folder: Path) -> Iterator[Path]:
    if _holds_dicom(folder):
        yield folder
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _dicom_folders(entry)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"{folder} could not be read: {error.strerror or error}.",
            "The images in it are not known.",
            "Check the path and the permissions.",
        ) from error


def _holds_dicom(folder: Path) -> bool:
    """True when a file right in `folder` is DICOM, by its suffix or, when the name says nothing, by its content."""
    for entry in _entries(folder):
        suffix = suffix_of(entry)
        if suffix in _DICOM and entry.is_file():
            return True
        if suffix not in IMAGE_SUFFIXES and entry.is_file() and os.access(entry, os.R_OK) and looks_like_dicom(entry):
            return True
    return False


def _unique_stems(sources: Sequence[tuple[Path, Path]]) -> list[str]:
    """A stem per source. Where names clash, the format and then the folder join the name, so that none is lost."""
    stems = [stem_of(source) for source, _ in sources]
    for longer in (_name_and_format, _name_with_folder):
        counts = Counter(stem.casefold() for stem in stems)  # one file on Windows and macOS whatever the case
        stems = [
            longer(source, top) if counts[stem.casefold()] > 1 else stem
            for stem, (source, top) in zip(stems, sources, strict=True)
        ]
    taken: set[str] = set()
    for place, stem in enumerate(stems):
        number = 1
        while stems[place].casefold() in taken:
            number += 1
            stems[place] = f"{stem}_{number}"
        taken.add(stems[place].casefold())
    return stems


def _name_and_format(source: Path, top: Path) -> str:
    """The path below `top` with its format: "a_nii_gz", "patient1_series2"."""
    return "_".join(source.relative_to(top).parts).replace(".", "_")


def _name_with_folder(source: Path, top: Path) -> str:
    return f"{stem_of(top)}_{_name_and_format(source, top)}"
