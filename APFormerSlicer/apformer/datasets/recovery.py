"""What a killed run, or an index from a backup, leaves behind: files of a change that was not finished go, others are
set aside.

What a change will write is announced before it is written, with the index that it starts from. Files that the index
does not know are those of a killed change when they were announced and the index is still the same.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..bundles.swap import unwritable
from ..errors import InputError
from ..files import atomic_path
from ..files.lock import sweep_claims
from ..owner import HALF_WRITTEN
from .case import CASES_FOLDER, case_name
from .identity import file_hash
from .index import INDEX_FILE, Index

LOCK_FILE = ".lock"
ANNOUNCED_FILE = ".announced.json"
SET_ASIDE = "set-aside"
_HALF_MADE_CASE = re.compile(r"\.case-\d+\.(new|old)-\w+")  # the temporary names of bundles.swap
_CASE = re.compile(r"case-\d{4,9}")
_CASE_FILE = re.compile(r"(image|labels-\d+)\.(nii\.gz|nrrd|png)")


def announce(root: Path, path: Path) -> None:
    """Say what the next change will write: a case's folder, or a label map without its suffix. Saving the index ends
    that (`fulfil`); call both only while holding the lock.

    Raises:
        OutputError: the folder cannot be written.
    """
    told = {"path": path.relative_to(root).as_posix(), "index": file_hash(root / INDEX_FILE)}
    with atomic_path(root / ANNOUNCED_FILE) as temporary:
        temporary.write_text(json.dumps(told), encoding="utf-8")


def fulfil(root: Path) -> None:
    """The index knows now what was announced."""
    with suppress(OSError):  # left behind, it names another index than the present one
        (root / ANNOUNCED_FILE).unlink(missing_ok=True)


def recover(index: Index) -> None:
    """Bring the folder in line with the index; call it only while holding the lock.

    Files of removed cases, half-written ones, and those of a change that was killed are deleted. Other whole files that
    the index does not know are moved to set-aside/, never deleted: they may be newer than an index restored from a
    backup. Files of other names are left.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        for path in [*index.root.glob(f".*-{INDEX_FILE}"), *index.root.glob(f".*-{ANNOUNCED_FILE}")]:
            if HALF_WRITTEN.fullmatch(path.name):
                path.unlink()
        sweep_claims(index.root / LOCK_FILE)
        for path in list(_entries(index.root / CASES_FOLDER)):
            _recover_folder(path, index)
        announced = _announced(index.root)
        for path in unknown_files(index):
            if path.with_name(path.name.partition(".")[0]) == announced:
                _remove(path)
            else:
                _set_aside(index.root, path)
        fulfil(index.root)
    except OSError as error:
        raise unwritable(index.root, error) from error


def _recover_folder(folder: Path, index: Index) -> None:
    removed = {case_name(number) for number in index.removed}
    if _HALF_MADE_CASE.fullmatch(folder.name) or folder.name in removed:
        _remove(folder)
        return
    for path in list(_entries(folder)):
        if HALF_WRITTEN.fullmatch(path.name):
            path.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _announced(root: Path) -> Path | None:
    """What a change that was killed had announced; None without one, and where the index is another one by now."""
    try:
        told = json.loads((root / ANNOUNCED_FILE).read_text("utf-8"))
        return root / told["path"] if told["index"] == file_hash(root / INDEX_FILE) else None
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None


def unknown_files(index: Index) -> list[Path]:
    """Whole files and folders with the names of cases' that the index does not list."""
    known = {case.name: case for case in index.cases.values()}
    unknown = []
    for folder in _entries(index.root / CASES_FOLDER):
        if not _CASE.fullmatch(folder.name):
            continue
        case = known.get(folder.name)
        if case is None:
            unknown.append(folder)
            continue
        listed = {case.image.file, *(revision.file for revision in case.revisions)}
        files = (path for path in _entries(folder) if _CASE_FILE.fullmatch(path.name))
        unknown += [path for path in files if path.name not in listed]
    return unknown


def _entries(folder: Path) -> Iterator[Path]:
    """The paths in `folder`; none when it is not there, or is a link, which may lead anywhere."""
    if folder.is_dir() and not folder.is_symlink():
        yield from sorted(folder.iterdir())


def _set_aside(root: Path, path: Path) -> None:
    (root / SET_ASIDE).mkdir(exist_ok=True)
    name = path.name if _CASE.fullmatch(path.name) else f"{path.parent.name}-{path.name}"
    os.rename(path, root / SET_ASIDE / f"{secrets.token_hex(4)}-{name}")
