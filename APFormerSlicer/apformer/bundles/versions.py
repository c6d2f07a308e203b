"""The versions of one model that a site made: kept side by side, one of them active.

    <folder>/<version>/     a whole bundle each, never changed once it is there
    <folder>/active.json    see record.py; written before the first version, so that its absence is noticed

Which version is newer is told by its number.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from ..errors import APFormerError, BundleError
from .bundle import Bundle, check_name, check_version, load_bundle
from .fields import parse_json
from .manifest import METADATA, read_manifest
from .record import (
    ADDED,
    IMPORTED,
    REPAIRED,
    Change,
    DamagedRecordError,
    Record,
    read_record,
    write_record,
)
from .swap import flush, put_in_place, unwritable

RECORD_FILE = "active.json"
# Where a model comes from; NAME@bundled and NAME@imported name those whatever their number is.
BUNDLED, IMPORTED_MODEL, TRAINED = ORIGINS = ("bundled", "imported", "trained")
FIRST_VERSION = "1.0.0"
_NUMBERS = re.compile(r"(\d+)\.(\d+)\.(\d+)(.*)")


def split_reference(text: str) -> tuple[str, str | None] | None:
    """NAME or NAME@VERSION as name and version (None for the active one); None when `text` is neither.

    Instead of a version, "bundled" or "imported" may stand.
    """
    name, at, version = text.partition("@")
    try:
        check_name(name)
        if at and version not in (BUNDLED, IMPORTED_MODEL):
            check_version(version)
    except BundleError:
        return None
    return name, version if at else None


def version_key(version: str) -> tuple[int, int, int, int, str]:
    """Sorts versions: 1.9.0 < 1.10.0-rc1 < 1.10.0 < 1.10.0+site."""
    match = _NUMBERS.fullmatch(check_version(version))
    assert match is not None
    major, minor, patch, suffix = match.groups()
    return int(major), int(minor), int(patch), {"-": -1, "": 0, "+": 1}[suffix[:1]], suffix


def version_above(versions: list[str]) -> str:
    """The highest of `versions` with its minor number raised; 1.0.0 when there is none."""
    if not versions:
        return FIRST_VERSION
    major, minor, *_ = version_key(max(versions, key=version_key))
    return check_version(f"{major}.{minor + 1}.0")


def described_version(directory: Path) -> str | None:
    """The version that the bundle in `directory` says it is, its weights unread; None when it cannot be told."""
    try:
        return check_version(str(parse_json(read_manifest(directory).read(METADATA), METADATA).get("version")))
    except BundleError:
        return None


def load_as(directory: Path, name: str, version: str | None = None) -> Bundle:
    """The bundle in `directory`, which must be the model `name`, and of that version when one is given.

    Raises:
        BundleError: it is unsound, or another model.
    """
    bundle = load_bundle(directory)
    if bundle.name != name:
        raise BundleError(
            f"The folder {directory} holds the model {bundle.name}.",
            "Models in the library are found by their folder's name, so the two must agree.",
            f"Rename the folder to {bundle.name}." if version is None else "Put the folder back where it was.",
        )
    if version is not None and bundle.version != version:
        raise BundleError(
            f"The folder {directory} holds version {bundle.version}.",
            "Versions are found by their folder's name, so the two must agree.",
            f"Rename the folder to {bundle.version}.",
        )
    return bundle


class Versions:
    """The versions of the model `name` in the folder `root`/`name`, which need not exist.

    Changes are made by one process at a time: whoever calls `add`, `note` or `activate` holds the library's lock.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / name

    def numbers(self) -> list[str]:
        """The versions that are there, lowest first."""
        try:
            found = [path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        except OSError:
            return []
        versions = []
        for number in found:
            with suppress(BundleError):
                versions.append(check_version(number))
        return sorted(versions, key=version_key)

    def directory(self, number: str) -> Path:
        """Where that version is kept."""
        return self.folder / number

    def record(self) -> Record:
        """Which version is active, and how that came about.

        Raises:
            DamagedRecordError: that cannot be told.
            BundleError: the record cannot be read, or is that of a newer program.
        """
        kept = self.numbers()  # first: when there is one, its record was written before it
        try:
            record = read_record(self.folder / RECORD_FILE)
        except DamagedRecordError as error:
            raise self._damaged(error.what) from error
        if record is None and kept:
            raise self._damaged(f"{RECORD_FILE} is missing.")
        return record or Record()

    def active(self) -> str | None:
        """The active version; None when it is the bundled or imported model, or none.

        Raises:
            BundleError: as `record`, or the active version is not there.
        """
        number = self.record().active
        if number is not None and not self.directory(number).is_dir():
            raise self.missing(number)
        return number

    def choice(self) -> str:
        """How a user chooses a version."""
        return f"`apformer models history {self.name}`, then `apformer models activate {self.name} VERSION`."

    def missing(self, number: str) -> BundleError:
        """The error for a version that the record names and that is not there."""
        return BundleError(
            f"Version {number} of {self.name} is no longer in {self.folder}.",
            "Another version is not taken in its place unless you say so.",
            f"Choose one that is there: {self.choice()}",
        )

    def unsound(self, error: BundleError) -> BundleError:
        """The error for an active version that cannot be loaded."""
        back = f"Go back with `apformer models rollback {self.name}`, or choose: {self.choice()}"
        return BundleError(error.what, error.meaning, back)

    def add(self, stage: Path, version: str) -> Path:
        """Take in the verified bundle in the folder `stage`, which is moved.

        Raises:
            OutputError: the folder cannot be written; no version is added.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flush(self.folder.parent)
            flush(self.folder.parent.parent)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        if not self.numbers() and not (self.folder / RECORD_FILE).exists():
            write_record(self.folder / RECORD_FILE, Record())
        put_in_place(stage, self.directory(version))
        with suppress(APFormerError):  # the version is safe; a log that cannot be written now only lacks a line
            self.note(ADDED, version)
        return self.directory(version)

    def note(self, what: str, to: str | None, why: str = "") -> None:
        """Add a change to the record.

        Raises:
            BundleError: as `record`.
            OutputError: it cannot be written; nothing changed.
        """
        write_record(self.folder / RECORD_FILE, self.record().after(what, to, why))

    def activate(self, number: str | None, what: str, why: str) -> None:
        """Make a version that is there the active one; a damaged record is kept aside, and a new one begun.

        Raises:
            BundleError: the record cannot be read, or is that of a newer program.
            OutputError: it cannot be written; nothing changed.
        """
        path = self.folder / RECORD_FILE
        try:
            if self.record().active != number:
                self.note(what, number, why)
        except DamagedRecordError as error:
            if path.exists():
                try:
                    os.replace(path, path.with_name(f"{RECORD_FILE}.damaged"))
                except OSError as failure:
                    raise unwritable(path, failure) from failure
            write_record(path, Record().after(REPAIRED, number, why or error.what))

    def changes(self) -> tuple[Change, ...]:
        """What happened to the versions, oldest first; empty when that cannot be told (`record` says why)."""
        try:
            return self.record().log
        except BundleError:
            return ()

    def origin(self, number: str) -> str:
        """Whether that version was trained here, or imported beside those that were."""
        imported = any(change.what == IMPORTED and change.to == number for change in self.changes())
        return IMPORTED_MODEL if imported else TRAINED

    def date(self, number: str) -> str | None:
        """When the record says that the version was added; None when it does not."""
        dates = [change.when for change in self.changes() if change.to == number and change.what == ADDED]
        return dates[-1] if dates else None

    def ever(self) -> list[str]:
        """The versions that are there and those that were: a number should not come to mean two models."""
        return [*self.numbers(), *(change.to for change in self.changes() if change.to is not None)]

    def _damaged(self, what: str) -> DamagedRecordError:
        return DamagedRecordError(
            f"It cannot be told which version of {self.name} is active: {what}",
            "No version is taken by guess, since it could be another model than the one you chose.",
            f"Choose one: {self.choice()}",
        )


def tidy(root: Path) -> None:
    """Remove what processes that were killed left half written or half removed in the versions below `root`.

    Call it only while holding the library's lock. What cannot be removed now is left for the next time.
    """
    for pattern in (".*.new-*", "*/.*.new-*"):
        for folder in list(root.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)
    for path in list(root.glob(f"*/.*-{RECORD_FILE}")):
        with suppress(OSError):
            path.unlink()
