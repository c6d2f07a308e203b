"""Requests and events survive the wire, and anything else is refused in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.jobs.messages import LONGEST_LINE, Event, Fields, JobError, Request, RequestError, plain

NAMES = ["brain.nii.gz", "Schädel mit Leerzeichen.nrrd", "脳 🧠.mha", "not\udcfftext.nii", 'quote".nii']


@pytest.mark.parametrize("name", NAMES)
def test_a_request_arrives_as_it_was_sent(name: str) -> None:
    request = Request("7", "segment", {"image": name, "uncertainty": True})
    line = request.encode()
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert Request.parse(line.rstrip(b"\n")) == request


@pytest.mark.parametrize("name", NAMES)
def test_an_event_is_one_ascii_line_and_arrives_as_it_was_told(name: str) -> None:
    event = Event("result", "7", {"paths": {"labels": f"{name}\nnext line"}})
    line = event.encode()
    assert line.isascii() and line.count(b"\n") == 1
    assert Event.parse(line) == event


@pytest.mark.parametrize("kind", ["log", "progress", "error"])
def test_half_characters_become_legible_in_what_is_only_read_and_stay_in_the_path_of_a_log(kind: str) -> None:
    data = {
        "message": "case \ud800",
        "what": "Sch\u00e4del \udcff",
        "last_lines": ["\udfff"],
        "log": "/logs/\udcff.log",
    }
    event = Event.parse(Event(kind, "7", data).encode())
    assert event is not None
    assert event.data == {
        "message": "case \\ud800",
        "what": "Sch\u00e4del \\udcff",
        "last_lines": ["\\udfff"],
        "log": "/logs/\udcff.log",
    }


def test_numbers_and_depths_that_no_reader_takes_are_told_as_something_it_takes() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    data = {"huge": 10**5000, "large": 2**70, "endless": endless, "bytes": b"\xff", "id": 2**63 - 1}
    event = Event.parse(Event("result", "7", data).encode())
    assert event is not None
    assert event.data["huge"] is None and event.data["large"] == 2.0**70 and event.data["id"] == 2**63 - 1


def test_a_request_may_carry_paths() -> None:
    assert json.loads(Request("7", "segment", {"image": Path("a") / "b"}).encode())["image"] == str(Path("a") / "b")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"job": "ping"}', "no 'id'"),
        (b'{"id": 7, "job": "ping"}', "no 'id'"),
        (b'{"id": "", "job": "ping"}', "no 'id'"),
        (b'{"id": "7"}', "no 'job'"),
        (b'{"id": "7", "job": ["ping"]}', "no 'job'"),
        (b" " * (LONGEST_LINE + 1), "longer than"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_no_request_is_refused_in_words(line: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        Request.parse(line)
    assert caught.value.meaning and caught.value.remedy


@pytest.mark.parametrize(
    "line",
    [
        b"Slicer launcher 5.8",
        b"",
        b"\xff",
        b"7",
        b'{"event": "other", "data": {}}',
        b'{"event": "log"}',
        b'{"event": "log", "id": 7, "data": {}}',
    ],
)
def test_what_is_no_event_is_nothing(line: bytes) -> None:
    assert Event.parse(line) is None


def test_numbers_that_json_lacks_become_null_and_numpy_becomes_plain() -> None:
    told = {"dice": np.float32(0.5), "loss": math.nan, "worst": -math.inf, "shape": (np.int64(2), 3), 1: Path("a")}
    assert plain(told) == {"dice": 0.5, "loss": None, "worst": None, "shape": [2, 3], "1": "a"}
    assert plain(np.eye(2)) == [[1.0, 0.0], [0.0, 1.0]]


def test_an_error_keeps_its_parts_and_its_log_over_the_wire() -> None:
    error = JobError("It broke.", "No result.", "Try again.", "/logs/a.log", ["last", "lines"])
    event = Event.parse(Event("error", "7", error.as_data()).encode())
    assert event is not None
    back = JobError.from_data(event.data)
    assert (back.what, back.meaning, back.remedy, back.log, back.last_lines) == (
        "It broke.",
        "No result.",
        "Try again.",
        "/logs/a.log",
        ("last", "lines"),
    )


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (lambda fields: fields.text("x"), {}),
        (lambda fields: fields.text("x"), {"x": ""}),
        (lambda fields: fields.text("x"), {"x": 3}),
        (lambda fields: fields.path("x"), {"x": "a\0b"}),
        (lambda fields: fields.flag("x"), {"x": 1}),
        (lambda fields: fields.choice("x", ("a", "b")), {"x": "c"}),
        (lambda fields: fields.number("x", 0, 1), {"x": 2}),
        (lambda fields: fields.number("x", 0, 1), {"x": True}),
        (lambda fields: fields.number("x", 0, 1), {"x": math.nan}),
        (lambda fields: fields.section("x"), {"x": []}),
        (lambda fields: fields.matrix("x"), {"x": [[1, 0], [0, 1]]}),
        (lambda fields: fields.matrix("x"), {"x": [[1, 0, 0, 0]] * 3 + [[0, 0, 0, "1"]]}),
        (lambda fields: fields.matrix("x"), {"x": [[1, 0, 0, 0]] * 3 + [[0, 0, 0, math.inf]]}),
        (lambda fields: fields.matrix("x"), {"x": [[1, 0, 0, 0]] * 3 + [[0, 0, 0, 10**400]]}),
        (lambda fields: fields.number("x", 0, 1), {"x": 10**4000}),
        (lambda fields: fields.path("x"), {"x": "~nobody-has-this-name/a"}),
        (lambda fields: fields.path("x"), {"x": "a\ud800b"}),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(read: Any, values: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="'x'"):
        read(Fields("segment", values))


def test_fields_that_nobody_reads_are_refused() -> None:
    fields = Fields("segment", {"model": "liver-ct", "devise": "cpu"})
    assert fields.text("model") == "liver-ct"
    with pytest.raises(RequestError, match="'devise'"):
        fields.close()


def test_null_is_the_same_as_leaving_a_field_out() -> None:
    fields = Fields("segment", {"roi": None, "device": None})
    assert fields.optional_text("roi") is None
    assert fields.text("device", "auto") == "auto"
    fields.close()
