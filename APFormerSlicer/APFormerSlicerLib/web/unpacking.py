"""Zip files that users upload: unpacked within bounds, into one folder and nowhere else."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from apformer.errors import InputError

from .inbox import Inbox
from .quota import MOST_FILES

_CHUNK = 1 << 18
_DIRECTORY_BYTES = MOST_FILES * 400  # of a zip's list of files; zipfile reads it as one piece, into objects
_LITTER = ("__MACOSX/", ".DS_Store")


def unpack(archive: Path, inbox: Inbox) -> list[Path]:
    """Write the files in `archive` into `inbox`, and return them. What was written before an error stays there.

    Zip files within it are files like others: they are not unpacked.

    Raises:
        InputError: not a zip file, damaged, encrypted, too large, with links, or with names that lead elsewhere.
    """
    name = archive.name
    try:
        with _Bounded(archive) as file, zipfile.ZipFile(file) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir() and not _is_litter(entry.filename)]
            for entry in entries:
                _check(entry, name)
            return [_write(opened, entry, inbox) for entry in entries]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{name} could not be unpacked ({error}).",
            "It is damaged, encrypted, too large, or no zip file.",
            "Make it again without a password, or upload the files without packing them.",
        ) from error


class _Bounded(io.FileIO):
    """A file of which nobody reads more at once than a zip's list of files may have."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def read(self, size: int | None = -1, /) -> bytes:
        most = _DIRECTORY_BYTES + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) > _DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"it lists more than {MOST_FILES} files")
        return content


def _is_litter(name: str) -> bool:
    return name.startswith(_LITTER[0]) or name.rpartition("/")[2] == _LITTER[1]


def _check(entry: zipfile.ZipInfo, name: str) -> None:
    """Raises InputError: an entry that is no file, or that is named so that it leads out of the folder."""
    said = entry.orig_filename  # `filename` is already cut at a NUL
    parts = PurePosixPath(said.replace("\\", "/")).parts
    if not parts or "\0" in said or said[:1] in ("/", "\\") or any(part == ".." or ":" in part for part in parts):
        raise InputError(
            f"{name} holds a file named {said[:80]!r}.",
            "Such a name leads out of the folder that it is unpacked to; nothing more of it was read.",
            "Make the zip file again from the folder with the images.",
        )
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise InputError(
            f"{name} holds {said[:80]!r}, which is a link or a device.",
            "It may lead to files of this computer; nothing more of it was read.",
            "Make the zip file again from the files themselves.",
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(
            f"{name} is compressed in an unusual way.",
            "Unpacking it may take any amount of memory; nothing of it was read.",
            "Make it again with the usual method (Deflate), or upload the files without packing them.",
        )


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, inbox: Inbox) -> Path:
    with opened.open(entry) as source, inbox.open(entry.filename) as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
    return target.path
