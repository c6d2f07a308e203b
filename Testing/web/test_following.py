"""Apply to the rest on the page: a slice is drawn with the mouse, a real network learns from it, the others follow."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from apformer.files import write_scalar
from web_corrections import MIDDLE, apply, button_of, learns, mark, strip_of
from web_following import NAME, STRUCTURE, TRUE_RADIUS, a_patient, save_model
from web_page import WebPage
from web_server import Served, serving

DRAWN = "Slice 5: drawn on"
RIGHT = "Slice 5: marked as right"


@pytest.fixture(scope="module")
def a_server(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    save_model(models / NAME)
    with serving(models=models) as server:
        yield server


@pytest.fixture(scope="module")
def a_page(a_server: Served, new_user: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> WebPage:
    """A patient in review, whose slices were all found too small; the axial view is at the fifth of nine."""
    path = tmp_path_factory.mktemp("upload") / "cone.nii.gz"
    write_scalar(path, a_patient())
    opened = WebPage(new_user(), a_server.address)
    opened.upload(path)
    opened.wait_for_image("cone")
    opened.choose_model(NAME)
    opened.segment()
    opened.press("3")
    go_to_slice(opened, 0.5)
    return opened


@pytest.fixture
def drawn(a_page: WebPage) -> Iterator[tuple[float, float]]:
    """The volume of the structure as it was proposed, and since the slice that is shown was set right with the brush;
    afterwards all is as it was proposed."""
    proposed = a_page.volumes()[STRUCTURE]
    take_brush(a_page)
    a_page.drag("Axial", *MIDDLE)
    yield proposed, a_page.wait_for_volume(STRUCTURE, lambda volume: volume > proposed)
    while (volume := a_page.volumes()[STRUCTURE]) != proposed:
        a_page.press("Control+z")
        a_page.wait_for_volume(STRUCTURE, partial(operator.ne, volume))
    a_page.press("Escape")
    a_page.page.locator(".tools:not(:has(.v-btn--active))").wait_for()
    if mark(a_page, RIGHT).count():
        button_of(a_page).click()
    learns(a_page, "Nothing was corrected since the proposal")


def take_brush(a_page: WebPage) -> None:
    """One that paints the whole structure of one slice."""
    a_page.press("p")
    a_page.page.locator(".tools .v-btn--active", has_text="Paint").wait_for()
    a_page.page.evaluate(f"trame.state.update({{brush_mm: {2 * TRUE_RADIUS}, brush_sphere: false}})")


def go_to_slice(a_page: WebPage, share: float) -> None:
    """Click on the strip of the axial view at that share of its width."""
    strip = strip_of(a_page)
    box = strip.bounding_box()
    a_page.page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


def test_nothing_can_be_applied_before_something_was_corrected(a_page: WebPage) -> None:
    learns(a_page, "Nothing was corrected since the proposal")
    assert a_page.page.get_by_role("button", name="Apply to the rest").is_disabled()
    assert mark(a_page, "Slices 1 to 9: proposed").count() == 1
    a_page.press("f")
    a_page.error("Nothing was corrected since the proposal")
    a_page.page.get_by_title("Dismiss").click()
    assert a_page.page.locator(".job").count() == 0


def test_what_was_drawn_and_marked_is_shown_along_the_slider_and_named_above_the_button(
    a_page: WebPage, drawn: tuple[float, float]
) -> None:
    learns(a_page, "Learns from strokes on 1 slice.")
    mark(a_page, DRAWN).wait_for()
    a_page.press("m")
    mark(a_page, RIGHT).wait_for()
    learns(a_page, "Learns from 1 corrected slice.")
    go_to_slice(a_page, 0.99)
    a_page.page.locator(".mark-button:not(.v-btn--active)").nth(2).wait_for()  # the last slice is not marked
    mark(a_page, RIGHT).click()
    a_page.page.locator(".mark-button.v-btn--active").wait_for()
    button_of(a_page).click()
    mark(a_page, DRAWN).wait_for()
    learns(a_page, "Learns from strokes on 1 slice.")


def test_the_rest_follows_is_shown_as_a_difference_and_taken_back(
    a_page: WebPage, a_server: Served, drawn: tuple[float, float]
) -> None:
    proposed, corrected = drawn
    a_page.press("m", "f")
    a_page.page.locator(".job", has_text="cone").wait_for()
    with a_server.held():
        a_page.page.reload()
        a_page.page.locator(".job", has_text="cone").wait_for()
    a_page.page.locator(".followed", has_text="Followed 1 corrected slice.").wait_for()
    followed = a_page.volumes()[STRUCTURE]
    assert followed > corrected + 4 * (corrected - proposed) / 9
    added, removed = a_page.page.locator(".followed td.number").all_inner_texts()
    assert float(added.removeprefix("+").removesuffix(" mL")) == pytest.approx(followed - corrected, abs=0.011)
    assert removed == "\u22120.00 mL"
    a_page.page.locator(".followed .v-btn--active", has_text="Difference").wait_for()
    a_page.page.reload()
    a_page.press("3")
    a_page.page.locator(".followed .v-btn--active", has_text="Difference").wait_for()
    a_page.press("d")
    a_page.page.locator(".followed:not(:has(.v-btn--active))").wait_for()
    a_page.page.locator(".followed").get_by_role("button", name="Undo").click()
    a_page.page.locator(".followed").wait_for(state="hidden")
    a_page.wait_for_volume(STRUCTURE, lambda volume: volume == corrected)
    learns(a_page, "Learns from 1 corrected slice.")


def test_a_proposal_that_is_kept_is_learned_from_with_the_next_correction_and_one_step_of_undo(
    a_page: WebPage, drawn: tuple[float, float]
) -> None:
    a_page.press("m")
    learns(a_page, "Learns from 1 corrected slice.")
    apply(a_page)
    first = a_page.volumes()[STRUCTURE]
    a_page.page.get_by_label("Also for the next patients today").click()
    a_page.press("y")
    a_page.page.locator(".followed").wait_for(state="hidden")
    a_page.notice(f"{NAME} 1.0.0+followed (for today) is chosen")
    a_page.page.get_by_title("Dismiss").click()
    learns(a_page, "All corrections were applied already")
    go_to_slice(a_page, 0.05)
    a_page.drag("Axial", *MIDDLE)
    second = a_page.wait_for_volume(STRUCTURE, lambda volume: volume > first)
    a_page.press("m")
    learns(a_page, "Learns from 2 corrected slices.")
    apply(a_page)
    assert a_page.page.locator(".followed", has_text="Followed 2 corrected slices.").count() == 1
    a_page.press("Control+z")
    a_page.page.locator(".followed").wait_for(state="hidden")
    a_page.wait_for_volume(STRUCTURE, lambda volume: volume == second)
    a_page.press("m")  # takes the mark of the first slice back
    go_to_slice(a_page, 0.5)


def test_where_nothing_is_gained_nothing_changes_and_it_is_told(a_page: WebPage) -> None:
    proposed = a_page.volumes()[STRUCTURE]
    button_of(a_page).click()  # as right as it was proposed
    learns(a_page, "Learns from 1 corrected slice.")
    a_page.press("f")
    assert "warning" in a_page.notice("The proposal stays as it was").get_attribute("class")
    assert a_page.page.locator(".followed").count() == 0
    assert a_page.volumes()[STRUCTURE] == proposed
    a_page.page.get_by_title("Dismiss").click()
    button_of(a_page).click()
    learns(a_page, "Nothing was corrected since the proposal")


def test_it_can_be_cancelled_and_what_was_drawn_stays(
    a_page: WebPage, a_server: Served, drawn: tuple[float, float]
) -> None:
    a_page.press("f")
    a_page.page.locator(".job", has_text="cone").wait_for()
    with a_server.held():
        a_page.page.get_by_role("button", name="Cancel").click()
    a_page.notice("Cancelled: cone with")
    assert a_page.page.locator(".followed").count() == 0
    assert a_page.volumes()[STRUCTURE] == drawn[1]
    a_page.page.get_by_title("Dismiss").click()
    learns(a_page, "Learns from strokes on 1 slice.")


def test_a_worker_that_dies_is_told_what_was_drawn_stays_and_it_can_be_applied_again(
    a_page: WebPage, a_server: Served, drawn: tuple[float, float]
) -> None:
    a_page.press("m", "f")
    a_page.page.locator(".job", has_text="cone").wait_for()
    for worker in a_server.processes("apformer.jobs"):
        worker.kill()
    assert "SIGKILL" in a_page.error("ended")[0]
    assert a_page.volumes()[STRUCTURE] == drawn[1]
    a_page.page.get_by_title("Dismiss").click()
    learns(a_page, "Learns from 1 corrected slice.")
    apply(a_page)
    assert a_page.volumes()[STRUCTURE] > drawn[1]
    a_page.page.locator(".followed").get_by_role("button", name="Undo").click()
    a_page.page.locator(".followed").wait_for(state="hidden")
