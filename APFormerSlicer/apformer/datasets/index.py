"""index.json: everything a data set knows beyond its images and label maps, read strictly and replaced at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..bundles.fields import Fields, malformed
from ..bundles.labels import HIGHEST_LABEL, Label, check_labels
from ..errors import BundleError, ConfigError
from ..files import atomic_path
from .case import UNKNOWN, SiteCase, case_name
from .identity import new_salt
from .split import Split

INDEX_FILE = "index.json"
FORMAT = "apformer-dataset"
SCHEMA = 2  # what is read; written is the lowest that tells all, for what is installed elsewhere
_WITHOUT_UNKNOWNS = 1  # before cases could leave structures or voxels unknown
# A case takes about 1 kB, so this is far above any data set one folder holds, and is parsed in seconds.
_LARGEST_BYTES = 256 << 20
_MOST_CASES = 1_000_000
_FIELDS = ("format", "schema", "salt", "labels", "next_number", "removed", "split", "cases")


@dataclass(frozen=True)
class Index:
    """The index of the data set in `root`.

    `salt`: 32 hexadecimal digits; `labels`: the label table; `removed`: numbers of cases that were removed and whose
    files may still be there after a crash; `cases` by number.
    """

    root: Path
    salt: str
    labels: tuple[Label, ...] = ()
    next_number: int = 1
    removed: frozenset[int] = frozenset()
    split: Split | None = None
    cases: Mapping[int, SiteCase] = field(default_factory=dict)

    @staticmethod
    def new(root: Path, labels: tuple[Label, ...], salt: str | None = None) -> Index:
        return Index(root, salt or new_salt(), labels)

    def with_case(self, case: SiteCase) -> Index:
        """The index with `case` added, or changed."""
        return replace(
            self, cases={**self.cases, case.number: case}, next_number=max(self.next_number, case.number + 1)
        )

    def with_labels(self, labels: tuple[Label, ...]) -> Index:
        """The index with a longer table: what cases said of the whole table, they said of the one before."""
        before = tuple(sorted(label.value for label in self.labels))
        cases = {number: case.outlining(before) for number, case in self.cases.items()}
        return replace(self, labels=labels, cases=cases)

    def without_case(self, number: int) -> Index:
        cases = {other: case for other, case in self.cases.items() if other != number}
        return replace(self, cases=cases, removed=self.removed | {number})

    @property
    def _has_unknowns(self) -> bool:
        """Whether a version of the labels leaves structures or voxels unknown: an older program would take them for
        background."""
        named = {label.value for label in self.labels}
        return any(
            revision.labelled is not None or (UNKNOWN in revision.counts and UNKNOWN not in named)
            for case in self.cases.values()
            for revision in case.revisions
        )

    def as_bytes(self) -> bytes:
        """JSON, one case a line."""
        head = {
            "format": FORMAT,
            "schema": SCHEMA if self._has_unknowns else _WITHOUT_UNKNOWNS,
            "salt": self.salt,
            "labels": [label.as_dict() for label in self.labels],
            "next_number": self.next_number,
            "removed": sorted(self.removed),
            "split": None if self.split is None else self.split.as_dict(),
        }
        lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
        cases = [json.dumps(case.as_dict(), ensure_ascii=False, allow_nan=False) for case in self.cases.values()]
        body = ",\n  ".join(cases)
        return ("{\n" + ",\n".join([*lines, f' "cases": [\n  {body}\n ]']) + "\n}\n").encode()

    def save(self) -> bytes:
        """Put this in the place of the index, all or nothing, and return what was written.

        Raises:
            OutputError: the folder cannot be written, or the disk is full; the earlier index is then unchanged.
        """
        content = self.as_bytes()
        with atomic_path(self.root / INDEX_FILE) as temporary:
            temporary.write_bytes(content)
        return content


def read_bytes(root: Path) -> bytes:
    """The index file of the data set in `root`.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = root / INDEX_FILE
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{root} is not a data set: it has no {INDEX_FILE}.",
            "There are no cases to work on.",
            f"Check the path, or make a data set there with `apformer dataset init {root}`.",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} could not be read: {error.strerror or error}.",
            "The cases of the data set are not known.",
            "Check the permissions of the file and its folders.",
        ) from error
    if len(content) > _LARGEST_BYTES:
        raise _damaged(path, f"it is larger than {_LARGEST_BYTES >> 20} MiB")
    return content


def parse(content: bytes, root: Path) -> Index:
    """The index that `content` holds; names in it cannot lead outside `root`, and sizes are bounded.

    Raises:
        ConfigError: damaged, hostile, or of a newer version of this program.
    """
    path = root / INDEX_FILE
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not valid JSON ({error})") from error
    try:
        return _index(Fields(data, INDEX_FILE), root)
    except BundleError as error:  # the strict reading of bundles, whose advice is about models
        raise _damaged(path, error.what.rstrip(".")) from error


def _index(fields: Fields, root: Path) -> Index:
    if fields.value("format") != FORMAT:
        raise malformed(f"'format' is not {FORMAT}")
    schema = fields.integer("schema", 1, 1_000_000)
    if schema > SCHEMA:
        raise ConfigError(
            f"{root} was written by a newer version of this program (schema {schema}; this one reads {SCHEMA}).",
            "It may hold what this version would lose, so it is not opened.",
            "Update this program, or work on the data set where the newer version is installed.",
        )
    fields.only(_FIELDS)
    salt = fields.text("salt", 32)
    if len(salt) != 32 or set(salt) - set("0123456789abcdef"):
        raise malformed("'salt' is not 32 hexadecimal digits")
    labels = [
        Label.from_fields(Fields(item, f"{INDEX_FILE}, labels[{n}]"))
        for n, item in enumerate(fields.items("labels", HIGHEST_LABEL))
    ]
    cases: dict[int, SiteCase] = {}
    for n, item in enumerate(fields.items("cases", _MOST_CASES)):
        case = SiteCase.from_fields(Fields(item, f"{INDEX_FILE}, cases[{n}]"), root)
        if case.number in cases:
            raise malformed(f"{case_name(case.number)} is listed twice")
        cases[case.number] = case
    removed = fields.items("removed", _MOST_CASES)
    if not all(type(number) is int for number in removed) or set(removed) & set(cases):
        raise malformed("'removed' does not list removed cases")
    index = Index(
        root=root,
        salt=salt,
        labels=check_labels(labels) if labels else (),
        next_number=fields.integer("next_number", 1, 1_000_000_000),
        removed=frozenset(removed),
        split=Split.from_fields(fields.section("split")) if fields.has("split") else None,
        cases=cases,
    )
    if max(cases, default=0) >= index.next_number:
        raise malformed("'next_number' is that of an existing case")
    return index


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return data


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {reason}.",
        "It was damaged or changed by hand. The images and label maps beside it were not touched.",
        f"Restore {path.name} from a backup; it is the only file to restore.",
    )
