"""The page in a real Chromium, on the demonstration's volume: segment, reload, cancel, review."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from web_page import WebPage
from web_server import Served

NAMES = ["Anterior hippocampus", "Posterior hippocampus"]


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """The addresses that the browser asked for."""
    return []


@pytest.fixture(scope="module")
def a_page(a_server: Served, new_user: Callable[[], Any], asked: list[str]) -> WebPage:
    """The demonstration's volume, which was segmented; the page was reloaded while the job ran."""
    user = new_user()
    user.on("request", lambda request: asked.append(request.url))
    opened = WebPage(user, a_server.address)
    opened.load_demo()
    opened.press("2")
    opened.text("Kept-token map").click()
    opened.start()
    with a_server.held():
        opened.page.reload()
        opened.page.locator(".job", has_text="Demo: T1 template with hippocampus-mr").wait_for()
    opened.wait_for_result()
    return opened


def test_both_sides_are_segmented_with_one_click_and_a_reload_rejoins_the_job(a_page: WebPage) -> None:
    volumes = a_page.volumes(".result")
    assert list(volumes) == NAMES
    assert all(4.0 < volume < 5.5 for volume in volumes.values())  # of two sides; one has some 2.3 mL
    colours = [swatch.get_attribute("style") for swatch in a_page.page.locator(".result .swatch").all()]
    assert len(set(colours)) == 2


def test_segment_stays_in_view_beside_a_result(a_page: WebPage) -> None:
    a_page.press("2")
    button = a_page.page.locator(".always button:visible").bounding_box()
    window = a_page.page.viewport_size
    assert button is not None and window is not None
    assert a_page.page.locator(".result").is_visible()
    assert button["y"] + button["height"] <= window["height"]


def test_nothing_is_asked_of_another_computer_by_the_page_or_by_the_server(
    a_page: WebPage, a_server: Served, asked: list[str]
) -> None:
    assert {urlsplit(url).netloc for url in asked if url.startswith("http")} == {urlsplit(a_server.address).netloc}
    assert a_page.complaints == []
    reached = [link.raddr.ip for one in a_server.processes() for link in one.net_connections("inet") if link.raddr]
    assert reached
    assert set(reached) == {"127.0.0.1"}


def test_another_user_sees_nothing_of_it(a_page: WebPage, a_server: Served, a_user: Any) -> None:
    other = WebPage(a_user, a_server.address)
    assert other.text("No image loaded").is_visible()
    assert other.text("Demo: T1 template").count() == 0
    other.end_session()


def test_a_running_job_is_cancelled_and_the_result_before_it_stays(a_page: WebPage) -> None:
    before = a_page.volumes(".result")
    a_page.start()
    a_page.page.get_by_role("button", name="Cancel").click()
    a_page.notice("Cancelled: Demo: T1 template with hippocampus-mr")
    assert a_page.page.locator(".job").count() == 0
    a_page.press("3")
    assert a_page.volumes() == before
    a_page.page.get_by_title("Dismiss").wait_for(state="detached")  # news stay where they were told


def test_maps_are_laid_over_the_image_and_the_next_place_is_shown(a_page: WebPage) -> None:
    a_page.press("3")
    for key, name in (("u", "Uncertainty"), ("k", "Where it looked")):
        button = a_page.page.get_by_role("button", name=name)
        a_page.press(key)
        a_page.page.locator(".maps .v-btn--active", has_text=name).wait_for()
        button.click()
        a_page.page.locator(".maps:not(:has(.v-btn--active))").wait_for()
    left, everything = (
        int(word) for word in a_page.page.locator(".places").inner_text().split(" left")[0].split(" of ")
    )
    assert 0 < left == everything
    a_page.press("n")
    a_page.page.locator(".places", has_text=f"{left - 1} of {everything} left. ").filter(has_text="in doubt").wait_for()


def test_accepted_segments_say_so_and_flagged_ones_too(a_page: WebPage) -> None:
    a_page.press("3", "a")
    a_page.page.locator(".segments .status.accepted").nth(1).wait_for()
    a_page.page.get_by_label("Something is wrong").fill("the tail is cut off")
    a_page.page.get_by_role("button", name="Flag").click()
    a_page.page.locator(".segments .status.flagged").nth(1).wait_for()
    assert a_page.page.locator(".segments tr").first.get_attribute("title") == "the tail is cut off"


def test_the_keys_are_listed(a_page: WebPage) -> None:
    a_page.press("?")
    listed = a_page.page.locator(".keys", has_text="next place to check")
    listed.wait_for()
    a_page.press("Escape")
    listed.wait_for(state="hidden")


def test_the_model_is_downloaded_as_a_bundle(a_page: WebPage, tmp_path: Path) -> None:
    a_page.press("2")
    path = a_page.download("Download the model", tmp_path)
    assert path.suffix == ".zip"
    assert any(name.endswith("models/model.safetensors") for name in zipfile.ZipFile(path).namelist())


def test_what_a_person_accepted_is_replaced_only_after_a_question(a_page: WebPage) -> None:
    a_page.press("3", "a")
    a_page.page.locator(".segments .status.accepted").nth(1).wait_for()
    a_page.press("2", "s")
    agree = a_page.page.get_by_role("button", name="Replace them")
    agree.wait_for()
    assert a_page.page.locator(".job").count() == 0
    agree.click()
    agree.wait_for(state="hidden")
    a_page.wait_for_result()
    a_page.press("3")
    a_page.page.locator(".segments .status.to-check").nth(1).wait_for()
    assert a_page.page.locator(".segments tr").count() == len(NAMES)
