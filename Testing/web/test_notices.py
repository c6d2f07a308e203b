"""News come and go; what the user must know stays until it was read."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from APFormerSlicerLib.web import notices
from desk_samples import Seat


def test_news_fade_and_warnings_and_errors_stay(a_seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_FADE_SECONDS", 0.01)
    a_seat.do(lambda: a_seat.desk.notices.tell("Stored."))
    a_seat.do(lambda: a_seat.desk.notices.tell("Choose a series.", stays=True))
    a_seat.press("s")  # nothing to segment
    a_seat.do(lambda: a_seat.desk.notices.warn(["Look here."]))
    assert "Stored." in a_seat.told("info")
    a_seat.wait(0.2)
    assert a_seat.told("info") == ["Choose a series."]
    assert a_seat.told("warning") == ["Look here."] and len(a_seat.told("error")) == 1


def test_news_belong_to_the_step_in_which_they_were_told_and_other_notices_to_all(a_seat: Seat) -> None:
    a_seat.set("step", "site")
    a_seat.do(lambda: a_seat.desk.notices.tell("Stored."))
    a_seat.do(lambda: a_seat.desk.notices.warn(["Look here."]))
    assert {one["what"]: one["step"] for one in a_seat.state.notices} == {"Stored.": "site", "Look here.": ""}
