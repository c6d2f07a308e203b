"""Headers that keep their voxels in a second file (.mhd, .nhdr): where that file may lie."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .formats import damaged


def data_beside(header: Path, named: str, suffix: str) -> Path:
    """The file `named` in `header`: a plain name of a file that lies beside it, links followed.

    A header that names anything else could have every file of this computer read as voxels and handed out.

    Args:
        suffix: the one that headers without voxels have in this format.

    Raises:
        InputError: the header should hold its voxels itself; a list or pattern of files; a name that leads out of the
            folder; no such file.
    """
    if header.suffix.lower() != suffix:
        raise InputError(
            f"{header} keeps its voxels in another file ({named[:80]!r}).",
            f"A {header.suffix} file holds header and voxels in one; what it names elsewhere is not opened.",
            f"Save the image as one file, or name the header {suffix} and put its data file beside it.",
        )
    if named.split()[:1] in (["LIST"], ["list"]) or "%" in named:
        raise InputError(
            f"{header} names a list of files.",
            "Voxels are read from one file beside the header.",
            "Open it in Slicer and save it as one file, for example .nrrd.",
        )
    if not named or named in (".", "..") or any(mark in named for mark in ("/", "\\", ":", "\0")):
        raise InputError(
            f"{header} names its data file {named[:80]!r}.",
            "Only a file beside the header is opened, by its plain name.",
            "Put both into one folder, and write the plain name into the header.",
        )
    data = header.parent / named
    try:
        inside = data.resolve(strict=True).is_relative_to(header.parent.resolve()) and data.is_file()
    except (OSError, RuntimeError) as error:
        raise damaged(header, f"its data file {named[:80]!r} is not beside it") from error
    if not inside:
        raise InputError(
            f"{header} names its data file {named[:80]!r}, which is a link out of the folder, or no file.",
            "Only a file beside the header is opened.",
            "Put the data file itself beside the header.",
        )
    return data
