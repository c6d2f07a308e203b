"""What goes over the wire: requests and events, one JSON object per line. Standard library only."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import APFormerError

LONGEST_LINE = 1 << 20  # bytes; arrays travel as files, so a request is a few hundred
_LONGEST_AXIS = 1 << 20  # voxels
CONTROLS = ("cancel", "ping", "shutdown")  # answered at once, even while a job runs

READY, ACCEPTED, PROGRESS, LOG, METRICS = "ready", "accepted", "progress", "log", "metrics"
RESULT, ERROR, CANCELLED = "result", "error", "cancelled"
MEMORY = "memory"  # the worker's own, every half second while a job runs; hosts keep the last one and tell nobody
EVENTS = (READY, ACCEPTED, PROGRESS, LOG, METRICS, RESULT, ERROR, CANCELLED, MEMORY)
ENDINGS = (RESULT, ERROR, CANCELLED)  # every accepted request ends with exactly one of these
_READ = (PROGRESS, LOG, ERROR)  # what their data say is only read, but for the path of a log
_LARGEST_WHOLE = 2**63  # whole numbers from there on are told as fractions: few programs can read them
_LARGEST_NUMBER = 1e300
_DEEPEST = 50  # levels of lists and objects


class RequestError(APFormerError):
    """A request cannot be understood."""

    def __init__(
        self, what: str, remedy: str = "This is a fault of the program that sent it: please report it."
    ) -> None:
        super().__init__(what, "Nothing was started.", remedy)


class JobError(APFormerError):
    """A job failed, or the worker did.

    Attributes:
        log: path of the job's log file, where there is one.
        last_lines: the end of that log, when the worker stopped by itself.
    """

    def __init__(
        self, what: str, meaning: str, remedy: str, log: str | None = None, last_lines: Sequence[str] = ()
    ) -> None:
        super().__init__(what, meaning, remedy)
        self.log, self.last_lines = log, tuple(last_lines)

    def as_data(self) -> dict[str, Any]:
        """An error event's data."""
        extra = {"last_lines": list(self.last_lines)} if self.last_lines else {}
        return {**self.as_dict(), "log": self.log, **extra}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> JobError:
        """The error that an event's data tell."""
        what, meaning, remedy = (str(data.get(key, "")) for key in ("what", "meaning", "remedy"))
        lines, log = data.get("last_lines"), data.get("log")
        lines = [str(line) for line in lines] if isinstance(lines, list) else []
        return JobError(what, meaning, remedy, log if isinstance(log, str) else None, lines)


class JobCancelledError(APFormerError):
    """A job was cancelled on request."""

    def __init__(self) -> None:
        super().__init__("The job was cancelled.", "It has no result.", "Start it again if you need one.")


@dataclass(frozen=True)
class Event:
    """Something the worker tells. `id` is the request's; None for `ready` and for lines that could not be read."""

    kind: str
    id: str | None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def ends(self) -> bool:
        """Whether this is the last event of its job."""
        return self.kind in ENDINGS and self.id is not None

    def encode(self) -> bytes:
        """One line. ASCII with escapes: it survives any console code page, and file names that are not text.

        Such names stay as they are in a result, since they shall be found again, and become legible in what is only
        read, since windows and terminals cannot show them.
        """
        data = plain(self.data)
        if self.kind in _READ:
            data = {key: value if key == "log" else legible(value) for key, value in data.items()}
        return json.dumps({"event": self.kind, "id": self.id, "data": data}, allow_nan=False).encode("ascii") + b"\n"

    @staticmethod
    def parse(line: bytes) -> Event | None:
        """The event on a line; None for anything else, such as what a launcher prints."""
        try:
            read = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError, MemoryError):
            return None
        if not isinstance(read, dict) or read.get("event") not in EVENTS or not isinstance(read.get("data"), dict):
            return None
        identity = read.get("id")
        return Event(read["event"], identity, read["data"]) if identity is None or isinstance(identity, str) else None


@dataclass(frozen=True)
class Request:
    """Something a host asks for: its own `id`, a `job`, and that job's fields."""

    id: str
    job: str
    fields: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """One line."""
        return json.dumps({**self.fields, "id": self.id, "job": self.job}, default=os.fspath).encode("ascii") + b"\n"

    @staticmethod
    def parse(line: bytes) -> Request:
        """The request on a line.

        Raises:
            RequestError: not UTF-8, not JSON, not an object, no usable id or job.
        """
        if len(line) > LONGEST_LINE:
            raise RequestError(f"A request is longer than {LONGEST_LINE} bytes.", "Send arrays as files.")
        try:
            read = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError, MemoryError) as error:
            raise RequestError(f"A request is not valid JSON ({type(error).__name__}).") from error
        if not isinstance(read, dict):
            raise RequestError("A request is not a JSON object.")
        identity, job = read.pop("id", None), read.pop("job", None)
        if not isinstance(identity, str) or not 0 < len(identity) <= 100:
            raise RequestError("A request has no 'id' (a text of up to 100 characters).")
        if not isinstance(job, str):
            raise RequestError("A request has no 'job' (a text).")
        return Request(identity, job, read)


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON can hold it: NumPy numbers as numbers, paths as text, NaN and infinity as null."""
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, int) and not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        return float(value) if abs(value) < _LARGEST_NUMBER else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist(), depth + 1)
    return str(value)


def legible(value: Any) -> Any:
    """Texts, also those in lists, with escapes for what is no character (half of a surrogate pair, as file names that
    are not UTF-8 have)."""
    if isinstance(value, list):
        return [legible(item) for item in value]
    return value.encode("utf-8", errors="backslashreplace").decode("utf-8") if isinstance(value, str) else value


class Fields:
    """A request's fields, read one by one; `close` refuses what was not asked for, such as misspelt names."""

    def __init__(self, job: str, values: Mapping[str, Any]) -> None:
        self.job, self._values, self._read = job, values, set[str]()

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        self._read.add(name)
        return self._values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not empty; with a default it may be left out."""
        if not self.has(name) and default is not None:
            return default
        value = self._values.get(name)
        if not isinstance(value, str) or not value or "\0" in value:
            raise self._refused(name, "a text that is not empty")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text, or None where it is left out."""
        return self.text(name) if self.has(name) else None

    def path(self, name: str) -> Path:
        """A path, with ~ for the home folder."""
        text = self.text(name)
        try:
            path = Path(text).expanduser()
            os.fsencode(path)
        except (RuntimeError, ValueError) as error:  # the home of nobody; characters that no file's name has
            raise self._refused(name, "a path that this system can have") from error
        return path

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of `choices`."""
        value = self.text(name, default)
        if value not in choices:
            raise self._refused(name, f"one of {', '.join(choices)}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; `default` where it is left out."""
        value = self._values.get(name) if self.has(name) else default
        if not isinstance(value, bool):
            raise self._refused(name, "true or false")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        self.has(name)
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._refused(name, f"a number from {low:g} to {high:g}")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.number(name, low, high)
        if value != int(value):
            raise self._refused(name, f"a whole number from {low} to {high}")
        return int(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts that are not empty; without any where it is left out."""
        values = self._values.get(name) if self.has(name) else []
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            raise self._refused(name, "a list of texts that are not empty")
        return tuple(values)

    def texts_by_name(self, name: str) -> dict[str, str]:
        """An object whose values are texts that are not empty; an empty one where it is left out."""
        values = self._values.get(name) if self.has(name) else {}
        if not isinstance(values, dict) or not all(isinstance(value, str) and value for value in values.values()):
            raise self._refused(name, "an object of texts that are not empty")
        return dict(values)

    def section(self, name: str) -> Fields:
        """An object within the request."""
        self.has(name)
        value = self._values.get(name)
        if not isinstance(value, dict):
            raise self._refused(name, "an object")
        return Fields(f"{self.job}, '{name}'", value)

    def matrix(self, name: str) -> list[list[float]]:
        """A 4 x 4 matrix of finite numbers."""
        self.has(name)
        rows = self._values.get(name)
        whole = isinstance(rows, list) and len(rows) == 4 and all(isinstance(r, list) and len(r) == 4 for r in rows)
        if not whole or not all(_is_finite(number) for row in rows or () for number in row):
            raise self._refused(name, "4 rows of 4 finite numbers")
        return [[float(number) for number in row] for row in rows or ()]

    def counts(self, name: str) -> tuple[int, ...]:
        """Whole numbers from 0, such as an index or the size of a grid."""
        self.has(name)
        values = self._values.get(name)
        if not isinstance(values, list) or not all(_is_count(value) for value in values):
            raise self._refused(name, "a list of whole numbers from 0")
        return tuple(values)

    def close(self) -> None:
        """Refuse fields that were not read."""
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            raise RequestError(f"The request ({self.job}) has the unknown field {unknown[0][:60]!r}.")

    def _refused(self, name: str, expected: str) -> RequestError:
        return RequestError(f"The request ({self.job}) needs {name!r}: {expected}.")


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST_NUMBER  # False for NaN, and for whole numbers that no float can hold


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LONGEST_AXIS


Listener = Callable[[Event], None]
