"""The job at the foot of the page: how far it is, and what is told of the time that is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from APFormerSlicerLib.web import jobs_bar
from APFormerSlicerLib.workflow import runs
from desk_samples import Seat


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def a_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(runs, "monotonic", clock)
    monkeypatch.setattr(jobs_bar, "_TICK_SECONDS", 0.001)
    yield clock


def line(a_seat: Seat) -> str:
    """Of the job, after the page had time to tell it anew."""
    a_seat.wait(0.05)
    return str(a_seat.state.job["line"])


def test_the_time_that_is_left_passes_and_is_withdrawn_when_it_is_over(a_seat: Seat, a_clock: Clock) -> None:
    a_seat.load("CT")
    asked = a_seat.begin()
    a_seat.do(lambda: asked.progress(0.4, eta_s=13.0))
    assert line(a_seat) == "segmenting, 40 %, about 13 s left"
    a_clock.now += 8.0
    assert line(a_seat) == "segmenting, 40 %, about 5 s left"
    a_clock.now += 232.0  # four minutes in all
    assert line(a_seat) == "segmenting, 40 %, longer than estimated"
    a_seat.do(lambda: asked.progress(0.5, eta_s=200.0))
    assert line(a_seat) == "segmenting, 50 %, about 3 min left"


def test_nothing_is_told_of_time_where_nothing_is_known(a_seat: Seat, a_clock: Clock) -> None:
    a_seat.load("CT")
    asked = a_seat.begin()
    a_seat.do(lambda: asked.progress(0.01, eta_s=None))
    a_clock.now += 500.0
    assert line(a_seat) == "segmenting, 1 %"
    a_seat.finish(asked=asked)
    a_seat.wait()
    assert a_seat.state.job is None
