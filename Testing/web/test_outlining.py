"""Any structure on the page: it is outlined with the mouse on three slices, those between follow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apformer.files import write_scalar
from web_corrections import MIDDLE, apply, learns, mark, strip_of
from web_following import SLICES, TRUE_RADIUS, a_patient
from web_page import WebPage
from web_server import Served, serving

TUMOUR = "Tumour"
SAYS = "Tumour: outlined on 3 axial slices; the slices between follow."
PICTURES = os.environ.get("APFORMER_SCREENSHOTS")


@pytest.fixture(scope="module")
def a_server(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(models=tmp_path_factory.mktemp("models")) as server:
        yield server


@pytest.fixture
def a_page(a_server: Served, new_user: Callable[[], Any], tmp_path: Path) -> Iterator[WebPage]:
    """An image that nobody segmented, and a new structure of a person's own."""
    write_scalar(tmp_path / "cone.nii.gz", a_patient())
    opened = WebPage(new_user(), a_server.address)
    opened.upload(tmp_path / "cone.nii.gz")
    opened.wait_for_image("cone")
    opened.press("3")
    opened.page.get_by_label("New structure, such as Tumour").fill(TUMOUR)
    opened.page.get_by_role("button", name="Outline").click()
    opened.page.locator(".segments tr.chosen", has_text=TUMOUR).wait_for()
    opened.page.locator(".tools .v-btn--active", has_text="Paint").wait_for()
    yield opened
    opened.end_session()


def outline(a_page: WebPage, *slices: int) -> float:
    """A dab of the brush on each of these slices; the volume of the structure then, mL."""
    a_page.page.evaluate(f"trame.state.update({{brush_mm: {2 * TRUE_RADIUS}}})")
    volume = a_page.volumes()[TUMOUR]
    for number in slices:
        before = volume
        slide_to(a_page, number)
        a_page.drag("Axial", *MIDDLE)
        volume = a_page.wait_for_volume(TUMOUR, lambda now, before=before: now > before)
    return volume


def slide_to(a_page: WebPage, number: int) -> None:
    """Click on the slider of the axial view; where nothing is known of slices yet, its strip is empty."""
    track = strip_of(a_page).locator("xpath=..").locator(".v-slider-track")
    box = track.bounding_box()
    share = min(max(number / (SLICES - 1), 0.02), 0.98)
    a_page.page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


def picture(a_page: WebPage, name: str) -> None:
    if PICTURES is not None:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        a_page.page.screenshot(path=str(Path(PICTURES) / name))


def test_what_no_model_knows_is_outlined_followed_kept_and_undone(a_page: WebPage) -> None:
    drawn = outline(a_page, 0)
    learns(a_page, "Tumour is outlined on one slice only")
    assert a_page.page.get_by_role("button", name="Apply to the rest").is_disabled()
    drawn = outline(a_page, 4, 8)
    learns(a_page, SAYS)
    mark(a_page, "Slice 5: drawn on").wait_for()
    picture(a_page, "outlined-1.png")
    apply(a_page)
    a_page.wait_for_volume(TUMOUR, lambda volume: volume > 2 * drawn)
    assert a_page.page.locator(".followed", has_text="Followed 3 outlined slices of Tumour.").count() == 1
    assert a_page.page.get_by_label("Also for the next patients today").count() == 0
    mark(a_page, "Slices 2 to 4: proposed").wait_for()
    learns(a_page, "Followed 3 outlined slices")
    picture(a_page, "outlined-2.png")
    a_page.page.locator(".followed").get_by_role("button", name="Undo").click()
    a_page.page.locator(".followed").wait_for(state="hidden")
    a_page.wait_for_volume(TUMOUR, lambda volume: volume == drawn)
    learns(a_page, SAYS)
    a_page.press("Escape", "f")  # again, with the key
    a_page.page.locator(".followed").wait_for()
    a_page.press("y")
    a_page.page.locator(".followed").wait_for(state="hidden")
    learns(a_page, "Nothing of Tumour was outlined since it was proposed")


def test_a_worker_that_dies_loses_no_outline(a_page: WebPage, a_server: Served) -> None:
    drawn = outline(a_page, 0, 4, 8)
    learns(a_page, SAYS)
    a_page.press("f")
    a_page.page.locator(".job", has_text="cone between outlines").wait_for()
    for worker in a_server.processes("apformer.jobs"):
        worker.kill()
    assert "SIGKILL" in a_page.error("ended")[0]
    assert a_page.volumes()[TUMOUR] == drawn
    a_page.page.get_by_title("Dismiss").click()
    learns(a_page, SAYS)


def test_two_structures_of_one_name_are_refused(a_page: WebPage) -> None:
    a_page.page.get_by_label("New structure, such as Tumour").fill("tumour ")
    a_page.page.get_by_role("button", name="Outline").click()
    a_page.error("has a segment named Tumour already")
    assert a_page.page.locator(".segments tr", has_text="umour").count() == 1
