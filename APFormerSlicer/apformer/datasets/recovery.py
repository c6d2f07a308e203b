"""What a killed run, or an index from a backup, leaves behind: half-written files go, whole ones are set aside."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..bundles.swap import unwritable
from .case import CASES_FOLDER, case_name
from .index import INDEX_FILE, Index

LOCK_FILE = ".lock"
SET_ASIDE = "set-aside"
_HALF_WRITTEN = re.compile(r"\.[0-9a-f]{12}-.+")  # the temporary names of files.atomic_path
_HALF_MADE_CASE = re.compile(r"\.case-\d+\.(new|old)-\w+")  # and those of bundles.swap
_CASE = re.compile(r"case-\d{4,9}")
_CASE_FILE = re.compile(r"(image|labels-\d+)\.(nii\.gz|nrrd|png)")


def recover(index: Index) -> None:
    """Bring the folder in line with the index; call it only while holding the lock.

    Files of removed cases and half-written ones are deleted. Whole files that the index does not know are moved to
    set-aside/, never deleted: they may be newer than an index restored from a backup. Files of other names are left.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        for path in list(index.root.glob(f".*-{INDEX_FILE}")):
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink()
        for path in list(index.root.glob(f"{LOCK_FILE}.*")):  # claims on locks that are gone; see files/lock.py
            with suppress(FileNotFoundError):
                path.unlink()
        for path in list(_entries(index.root / CASES_FOLDER)):
            _recover_folder(path, index)
        for path in unknown_files(index):
            _set_aside(index.root, path)
    except OSError as error:
        raise unwritable(index.root, error) from error


def _recover_folder(folder: Path, index: Index) -> None:
    removed = {case_name(number) for number in index.removed}
    if _HALF_MADE_CASE.fullmatch(folder.name) or folder.name in removed:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
        return
    for path in list(_entries(folder)):
        if _HALF_WRITTEN.fullmatch(path.name):
            path.unlink()


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
