"""Zip files that users upload: unpacked within bounds, into one folder and nowhere else."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from apformer.errors import InputError

MOST_FILES = 20_000  # a whole study of thin slices has some thousands
_CHUNK = 1 << 20


def unpack(archive: Path, folder: Path, most_bytes: int) -> list[Path]:
    """Write the files in `archive` below `folder`, and return them. What was written before an error stays there.

    Raises:
        InputError: not a zip file, damaged, encrypted, too large, or with names that lead elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check(entries, archive.name, most_bytes)
            return [_write(opened, entry, folder, archive.name) for entry in entries]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise InputError(
            f"{archive.name} could not be unpacked ({error}).",
            "It is damaged, encrypted, or no zip file.",
            "Make it again without a password, or upload the files without packing them.",
        ) from error


def _check(entries: list[zipfile.ZipInfo], name: str, most_bytes: int) -> None:
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or total > most_bytes:
        raise InputError(
            f"{name} holds {len(entries)} files of {total / 1e6:.0f} MB.",
            f"At most {MOST_FILES} files and {most_bytes / 1e6:.0f} MB are taken at once.",
            "Upload one series at a time, or ask for a larger --upload-mb.",
        )


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, name: str) -> Path:
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    if any(part in ("..", "/") or ":" in part for part in parts) or not parts:
        raise InputError(
            f"{name} holds a file named {entry.filename[:80]!r}.",
            "Such a name leads out of the folder that it is unpacked to; nothing more of it was read.",
            "Make the zip file again from the folder with the images.",
        )
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, path.open("xb") as target:  # zipfile stops at the size that was checked
        shutil.copyfileobj(source, target, _CHUNK)
    return path
