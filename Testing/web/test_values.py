"""What a page sends is read before it counts: values, events of its pointer, and texts that go back to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from apformer.errors import InputError
from APFormerSlicerLib.web.allowed import Allowed
from APFormerSlicerLib.web.hiding import Hiding
from APFormerSlicerLib.web.pointer import read_event, read_size
from APFormerSlicerLib.web.values import (
    Reader,
    UnreadableError,
    flag,
    number,
    one_of,
    one_of_numbers,
    range_of,
    some_of,
    text,
    typed_number,
    whole,
)
from web_hostile import HOSTILE

EVENT = {"type": "MouseMove", "x": 5.0, "y": 6.0, "w": 100.0, "h": 80.0}


@pytest.mark.parametrize(
    ("reader", "taken"),
    [
        (flag, {True: True, False: False}),
        (text(10), {"a b": "a b", None: "", "a\nb\x00": "a b "}),
        (number(0, 1), {0: 0.0, 0.5: 0.5}),
        (whole(1, 9), {1: 1, 9.0: 9}),
        (typed_number(1, 9), {"": "", None: "", "2.5": "2.5", 3: 3.0}),
        (one_of(("a", "b")), {"a": "a"}),
        (one_of_numbers((0.0, 0.5)), {0: 0.0, 0.5: 0.5}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_reader_takes_what_it_is_for(reader: Reader, taken: dict[Any, Any]) -> None:
    for value, read in taken.items():
        assert reader(value) == read
        assert type(reader(value)) is type(read)


@pytest.mark.parametrize(
    ("reader", "good"),
    [
        (flag, lambda read: isinstance(read, bool)),
        (text(50), lambda read: isinstance(read, str) and len(read) <= 50 and read.isprintable()),
        (number(-10, 10), lambda read: isinstance(read, float) and -10 <= read <= 10),
        (whole(0, 10), lambda read: isinstance(read, int) and 0 <= read <= 10),
        (typed_number(1, 10), lambda read: read == "" or 1 <= float(read) <= 10),
        (range_of(-1, 1), lambda read: len(read) == 2 and -1 <= read[0] <= read[1] <= 1),
        (one_of(("a", "", 1)), lambda read: read in ("a", "", 1) and not isinstance(read, bool)),
        (one_of_numbers((0.0, 1.0)), lambda read: type(read) is float and read in (0.0, 1.0)),
        (some_of(("a", "b")), lambda read: set(read) <= {"a", "b"} and len(set(read)) == len(read)),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_whatever_is_sent_a_reader_gives_what_it_promises_or_says_what_it_expects(reader: Reader, good: Any) -> None:
    refused = 0
    for value in HOSTILE:
        try:
            assert good(reader(value)), value
        except UnreadableError as error:
            assert "expected" in str(error)
            assert len(str(error)) < 300
            refused += 1
    assert refused > len(HOSTILE) // 3


def test_an_action_is_done_with_the_arguments_that_it_takes_and_with_no_others() -> None:
    done: list[tuple[object, ...]] = []
    allowed = Allowed()
    allowed.add_action("add", lambda *values: done.append(values), (whole(0, 9), flag))
    allowed.add_action("move", lambda step: done.append((step,)), (whole(0, 9),))
    allowed.act("add", [1, True])
    allowed.act("add", [])
    allowed.act("move", [3])
    assert done == [(1, True), (), (3,)]
    for name, arguments in (
        *(("move", [value]) for value in HOSTILE if not isinstance(value, int | float) or not 0 <= value <= 9),
        ("add", [1, True, 2]),
        ("move", []),
        ("move", {"step": 1}),
        ("move", None),
        *((name, []) for name in HOSTILE),
        ("__init__", []),
    ):
        with pytest.raises(InputError):
            allowed.act(name, arguments)
    assert len(done) == 3


def test_an_event_of_the_pointer_keeps_what_vtk_reads_and_nothing_else() -> None:
    read = read_event({**EVENT, "shiftKey": 1, "secret": "x", "spinY": -1, "key": "a"})
    assert read == {**EVENT, "shiftKey": True, "spinY": -1.0}
    pinch = {"type": "Pinch", "factor": 2, "positions": {"1": {"x": 1, "y": 2, "force": 3}}}
    assert read_event(pinch)["positions"] == {"1": {"x": 1.0, "y": 2.0}}


def test_no_event_brings_vtk_what_it_cannot_hold() -> None:
    for value in HOSTILE:
        with pytest.raises(UnreadableError):
            read_event(value)
        for name in (*EVENT, "positions", "translation", "spinY", "factor", "key", "keyCode", "shiftKey"):
            try:
                read = read_event({**EVENT, name: value})
            except UnreadableError:
                continue
            numbers = [one for one in read.values() if isinstance(one, float)]
            assert all(math.isfinite(one) and abs(one) < 2e6 for one in numbers), (name, value)
    for key in ("KeyDown", "KeyUp", "KeyPress"):  # VTK ends the process at a "q"
        with pytest.raises(UnreadableError):
            read_event({**EVENT, "type": key, "key": "q", "keyCode": 113})
    with pytest.raises(UnreadableError):  # and where it divides by the number of fingers
        read_event({"type": "Pinch", "factor": 2, "positions": {}})


def test_a_view_is_never_made_larger_than_a_screen() -> None:
    assert read_size({"w": 3840, "h": 2160, "p": 2}) == {"w": 3840.0, "h": 2160.0, "p": 2.0}
    for size in ({"w": 8000, "h": 8000, "p": 4}, {"w": 1e9, "h": 1}, {"w": -1, "h": 1}, {"w": 10, "h": 10, "p": 1e9}):
        with pytest.raises(UnreadableError):
            read_size(size)
    for value in HOSTILE:
        for size in (value, {"w": value, "h": 10}, {"w": 10, "h": 10, "p": value}):
            try:
                read = read_size(size)
            except UnreadableError:
                continue
            assert read["w"] * read["h"] * read["p"] ** 2 <= 7680 * 4320


# -------------------------------------------------------------------- texts to the page


PRIVATE = Path("/tmp/apformer-web-1/session-2")
TEXTS = {
    f"{PRIVATE}/uploads/tmpab_c1/liver.nii.gz could not be read.": "liver.nii.gz could not be read.",
    f"{PRIVATE}/uploads/tmpab_c1/study/IM 1 is damaged.": "study/IM 1 is damaged.",
    "The folder /srv/site data/cases cannot be written.": "The folder cases cannot be written.",
    "See /home/somebody/logs/worker-1.log.": "See worker-1.log.",
    "[Errno 2] No such file: '/opt/models/liver/model.safetensors'": "[Errno 2] No such file: 'model.safetensors'",
    r"C:\Users\somebody\data\a.nii is no file.": "a.nii is no file.",
    r"\\server\share\a.nii is no file.": "a.nii is no file.",
    "It has 3 mg/mL and 4 / 5 of a/b; see https://example.org/a/b.": "It has 3 mg/mL and 4 / 5 of a/b; see "
    "https://example.org/a/b.",
    "1/2 of the voxels": "1/2 of the voxels",
}


@pytest.fixture
def hiding() -> Hiding:
    return Hiding(PRIVATE, [Path("/srv/site data")], all_paths=True, own=("flag_comment",))


@pytest.mark.parametrize(("told", "shown"), TEXTS.items())
def test_a_user_of_somebody_elses_server_sees_no_folder_of_it(hiding: Hiding, told: str, shown: str) -> None:
    assert hiding.of_text(told) == shown


def test_paths_are_taken_out_of_every_value_but_the_users_own(hiding: Hiding) -> None:
    told = {
        "notices": [{"id": "/a/b", "what": "in /a/b.", "more": ["/a/b", {"deep": "/a/b"}]}],
        "flag_comment": "/a/b",
        "trame__template": "</div>/a/b",
    }
    assert hiding.of_state(told) == {
        "notices": [{"id": "/a/b", "what": "in b.", "more": ["b", {"deep": "b"}]}],
        "flag_comment": "/a/b",
        "trame__template": "</div>/a/b",
    }


def test_who_works_on_an_own_computer_sees_its_paths_but_not_the_sessions() -> None:
    own = Hiding(PRIVATE, [Path("/srv/site data")], all_paths=False, own=())
    assert own.of_text(f"{PRIVATE}/uploads/tmp1/a.nii and /srv/site data/b") == "a.nii and /srv/site data/b"
