"""Which views are drawn again when something changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from desk_samples import Seat
from trame_rca.schedulers import RcaImageRenderScheduler


@pytest.fixture
def drawn(a_seat: Seat, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], set[str]]:
    """Does something, and gives the names of the views that were drawn, of a segmented image in four views."""
    a_seat.load("CT")
    a_seat.segment()
    a_seat.wait(1.0)
    seen: list[str] = []
    names = {id(view.render_window()): view.get_singleton_tag() for view in a_seat.desk.slicer.view_manager.get_views()}
    draw = RcaImageRenderScheduler._render_frame

    def noted(self: RcaImageRenderScheduler, quality: int) -> None:
        seen.append(names[id(self.rca._vtk_render_window)])
        draw(self, quality)

    monkeypatch.setattr(RcaImageRenderScheduler, "_render_frame", noted)

    def do(work: Callable[[], object]) -> set[str]:
        seen.clear()
        work()
        a_seat.wait(1.0)
        return set(seen)

    return do


def test_a_view_that_goes_to_another_slice_is_drawn_alone(
    a_seat: Seat, drawn: Callable[[Callable[[], object]], set[str]]
) -> None:
    assert drawn(lambda: a_seat.desk.views.scroll(1, "Red")) == {"Red"}
    assert drawn(lambda: a_seat.desk.views.scroll(-1, "Green")) == {"Green"}


def test_what_all_views_show_is_drawn_in_all_of_them(
    a_seat: Seat, drawn: Callable[[Callable[[], object]], set[str]]
) -> None:
    display = a_seat.desk.segmentation.GetDisplayNode()
    assert drawn(lambda: display.SetVisibility(False)) >= {"Red", "Green", "Yellow"}
    assert drawn(lambda: a_seat.desk.views.show_place((6.0, 6.0, 9.0))) >= {"Red", "Green", "Yellow"}
    assert drawn(lambda: a_seat.press("9")) == {"Red", "Green", "Yellow"}


def test_nothing_is_drawn_when_nothing_changes(a_seat: Seat, drawn: Callable[[Callable[[], object]], set[str]]) -> None:
    assert drawn(lambda: a_seat.set("step", "review")) == set()
