"""Which version of a model is active, and how that came about: the file active.json.

    {"schema": 1, "active": "1.2.0" or null, "log": [{"when", "what", "from", "to", "why"}, oldest first]}

null stands for the model that was there before any version of it was trained, imported or bundled. What was active
before is told by the order of the log alone; the dates are for people, and clocks may be wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .bundle import check_version
from .fields import LARGEST_JSON_BYTES, Fields, malformed, parse_json

SCHEMA = 1
ADDED = "added"  # a version was written; which one is active did not change
ACTIVATED = "activated"
IMPORTED = "imported"  # a version came from a zip file, and is active
ROLLED_BACK = "rolled back"
REMOVED = "removed"
REPAIRED = "repaired"  # the record was damaged; what was active before is not known any more
# The most changes that are kept, and characters of a reason: at their longest they fit into LARGEST_JSON_BYTES.
MOST_CHANGES = 400
LONGEST_WHY = 500


class DamagedRecordError(BundleError):
    """It cannot be told which version is active; activating one makes a new record."""


@dataclass(frozen=True)
class Change:
    """One line of the log. `before`: the version active until then; `to`: the version that the change was about."""

    when: str
    what: str
    before: str | None
    to: str | None
    why: str = ""

    @classmethod
    def from_fields(cls, fields: Fields) -> Change:
        why = fields.text("why") if fields.value("why") != "" else ""
        return cls(
            fields.text("when", 64), fields.text("what", 64), _version(fields, "from"), _version(fields, "to"), why
        )

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"when": self.when, "what": self.what, "from": self.before, "to": self.to, "why": self.why}


@dataclass(frozen=True)
class Record:
    """The content of active.json."""

    active: str | None = None
    log: tuple[Change, ...] = ()

    def earlier(self) -> list[str | None]:
        """What was active before the active version, oldest first: rolling back leads to the last of these.

        A roll back undoes an activation, so a second one goes back further. Versions removed since are left out.
        """
        before: list[str | None] = []
        for change in self.log:
            if change.what in (ACTIVATED, IMPORTED):
                before.append(change.before)
            elif change.what == ROLLED_BACK:
                while before and before.pop() != change.to:
                    pass
            elif change.what == REMOVED:
                before = [version for version in before if version != change.to]
            elif change.what == REPAIRED:
                before = []
        return [version for version in before if version != self.active]

    def after(self, what: str, to: str | None, why: str = "") -> Record:
        """The record with one more change, dated now."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        reason = "".join(letter if letter.isprintable() else " " for letter in why[:LONGEST_WHY]).strip()
        change = Change(when, what, self.active, to, reason)
        active = self.active if what in (ADDED, REMOVED) else to
        return Record(active, (*self.log, change)[-MOST_CHANGES:])


def read_record(path: Path) -> Record | None:
    """The record in the file `path`; None when there is no such file.

    Raises:
        DamagedRecordError: its content is not a record.
        BundleError: it cannot be read, or a newer version of this program wrote it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BundleError(
            f"The file {path} cannot be read ({error.strerror}).",
            "It says which version of the model is active, and none is taken by guess.",
            "Check that you may read it, then try again.",
        ) from error
    try:
        fields = Fields(parse_json(content, path.name), path.name)
        schema = fields.integer("schema", 1, 1_000_000)
        if schema == SCHEMA:
            return _from_fields(fields)
    except BundleError as error:
        raise DamagedRecordError(error.what, error.meaning, error.remedy) from error
    raise BundleError(
        f"The file {path} is written in format {schema}; this program reads format {SCHEMA}.",
        "A newer version of this program keeps track of the model's versions.",
        "Update this program.",
    )


def write_record(path: Path, record: Record) -> None:
    """Write the record to the file `path`, all or nothing.

    Raises:
        OutputError: it cannot be written; an earlier record stays as it was.
    """
    from ..files.atomic import atomic_path

    data = {"schema": SCHEMA, "active": record.active, "log": [change.as_dict() for change in record.log]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _from_fields(fields: Fields) -> Record:
    fields.only(("schema", "active", "log"))
    changes = enumerate(fields.items("log", MOST_CHANGES))
    log = tuple(Change.from_fields(Fields(item, f"{fields.where}, log[{place}]")) for place, item in changes)
    return Record(_version(fields, "active"), log)


def _version(fields: Fields, name: str) -> str | None:
    value = fields.value(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise malformed(f"{fields.where}, '{name}' must be a version or null.")
    return check_version(value)
