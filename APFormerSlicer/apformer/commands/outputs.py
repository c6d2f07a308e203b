"""Where results go: a place for every case, checked before anything is computed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError, UsageError
from ..files.formats import LABEL_SUFFIXES, SCALAR_SUFFIXES, suffix_of
from ..volume import Volume
from .cases import Case
from .options import map_option


@dataclass(frozen=True)
class Task:
    """A case, and the files that its label map and the maps asked for (by name) are written to."""

    case: Case
    labels: Path
    maps: Mapping[str, Path]

    @property
    def outputs(self) -> list[Path]:
        return [self.labels, *self.maps.values()]


def place_outputs(
    cases: Sequence[Case], *, batch: bool, output: Path, suffix: str | None, maps: Mapping[str, Path]
) -> list[Task]:
    """Where the results of the cases go; `output` is a file for one case, otherwise a folder.

    Args:
        suffix: the format asked for, such as ".seg.nrrd"; None: .png for pictures and .nii.gz for all else.
        maps: the maps asked for, by name: files or folders likewise.

    Raises:
        UsageError: a file where a folder is needed, or a format that is unknown or contradicts `suffix`.
        OutputError: a result would replace an input or another result, or cannot be written.
    """
    in_folder = _is_folder(output, batch, LABEL_SUFFIXES, "-o")
    if not in_folder and suffix is not None and suffix_of(output) != suffix:
        raise UsageError(
            f"-o {output} and --format {suffix} contradict each other.",
            "Which format is meant is not known.",
            "Leave out --format: the format of a single result follows from its name.",
        )
    folders = {name for name, path in maps.items() if _is_folder(path, batch, SCALAR_SUFFIXES, map_option(name))}
    placed = []
    for case in cases:
        ending = ".png" if case.is_picture else ".nii.gz"
        labels = output / f"{case.stem}{suffix or ending}" if in_folder else output
        files = {name: path / f"{case.stem}_{name}{ending}" if name in folders else path for name, path in maps.items()}
        placed.append(Task(case, labels, files))
    _check_distinct(placed)
    for task in placed:
        for path in task.outputs:
            check_writable(path)
    return placed


def _is_folder(path: Path, batch: bool, suffixes: Sequence[str], option: str) -> bool:
    """Whether `path` is meant as a folder; UsageError when it can be neither that nor a file."""
    known = suffix_of(path) in suffixes
    if batch and not path.is_dir() and (known or path.is_file()):
        raise UsageError(
            f"There are several images, and {option} {path} is one file.",
            "Every result needs a file of its own.",
            f"Give {option} a folder; --format chooses the format of the label maps.",
        )
    if batch or path.is_dir() or not suffix_of(path):
        return True
    if not known:
        raise UsageError(
            f"{option} {path} names no format that can be written.",
            "The format follows from how the name ends.",
            f"End the name in one of {', '.join(suffixes)}, or give a folder.",
        )
    return False


def _check_distinct(tasks: Sequence[Task]) -> None:
    sources = {_identity(task.case.source) for task in tasks}
    taken: set[str] = set()
    for task in tasks:
        for path in task.outputs:
            clash = "an input" if _identity(path) in sources else "another result" if _identity(path) in taken else ""
            if clash:
                raise OutputError(
                    f"{path} would replace {clash}.",
                    "Nothing was computed, so that nothing is lost.",
                    "Choose another output, for example a new folder.",
                )
            taken.add(_identity(path))


def _identity(path: Path) -> str:
    """The same text for two paths to one file, on file systems that ignore case too."""
    return os.path.realpath(path).casefold()


def check_writable(path: Path) -> None:
    """Raise OutputError now for a place that could not be written to after minutes of computing.

    A nameless temporary file is tried in the folder, or in the nearest one above it that exists; nothing stays.
    """
    if path.is_dir():
        raise OutputError(
            f"{path} is a folder.", "A file cannot take its place.", "Name a file inside it, or another output."
        )
    folder = Path(os.path.abspath(path)).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error} ({folder}).",
            "Nothing was computed.",
            "Choose a folder that you may write to.",
        ) from error


def check_format(task: Task, volume: Volume) -> None:
    """Raise OutputError for a format that cannot hold a result on the grid of `volume`."""
    if suffix_of(task.labels) == ".dcm" and not volume.source.dicom_files:
        raise OutputError(
            f"{task.labels} would be a DICOM segmentation of an image that does not come from DICOM slices.",
            "A DICOM segmentation refers to the very slices it was made from (resampled ones do not count).",
            "Choose .seg.nrrd or .nii.gz.",
        )
    for path in task.outputs:
        if suffix_of(path) == ".png" and volume.spatial_shape[0] != 1:
            raise OutputError(
                f"{path} would have to hold {volume.spatial_shape[0]} slices.",
                "A PNG holds one slice.",
                "Choose .nii.gz, .nrrd or .seg.nrrd.",
            )
