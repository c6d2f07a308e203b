"""The page as a reading tool, in a real Chromium: two images, their brightness, what is under the pointer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from apformer.files import write_scalar
from apformer.volume import Volume
from web_page import WebPage
from web_server import Served

AIR, TISSUE = -1000, 40  # Hounsfield units


@pytest.fixture(scope="module")
def a_page(a_server: Served, new_user: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> WebPage:
    """The demonstration's volume, segmented; and then a CT, which is chosen."""
    array = np.full((20, 40, 40), AIR, np.int16)
    array[2:-2, 4:-4, 4:-4] = TISSUE
    path = tmp_path_factory.mktemp("upload") / "body.nii.gz"
    write_scalar(path, Volume(array, np.diag([2.0, 2.0, 3.0, 1.0]), "CT"))
    opened = WebPage(new_user(), a_server.address)
    opened.load_demo()
    opened.segment()
    opened.upload(path)
    opened.wait_for_image("body")
    return opened


def middle_of(a_page: WebPage, view: str) -> tuple[float, float]:
    box = a_page.page.locator(".view-name", has_text=view).locator("xpath=..").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_another_image_has_its_own_model_and_window_and_nothing_of_the_one_before(a_page: WebPage) -> None:
    a_page.press("2")
    a_page.page.locator(".row-item.chosen", has_text="liver-ct").wait_for()
    assert a_page.page.locator(".row-item.chosen:visible").count() == 1
    assert "Abdomen" in a_page.page.get_by_title("Brightness and contrast").inner_text()
    a_page.press("3")
    a_page.text("Nothing to review yet").wait_for()
    a_page.page.get_by_text("Surfaces appear here").wait_for()
    a_page.press("1")
    a_page.page.locator(".row-item", has_text="Demo").click()
    a_page.press("3")
    a_page.page.locator(".segments tr").nth(1).wait_for()
    a_page.press("1")
    a_page.page.locator(".row-item", has_text="body").click()
    a_page.wait_for_image("body")


def test_the_mouse_and_keys_set_the_window(a_page: WebPage) -> None:
    button = a_page.page.get_by_title("Brightness and contrast")
    a_page.press("9")
    button.get_by_text("Lung").wait_for()
    a_page.drag("Coronal", (0.4, 0.5), (0.5, 0.5), (0.6, 0.4))
    button.get_by_text("Lung").wait_for(state="detached")
    assert "W 1500 L -600" not in button.inner_text()
    button.click()
    a_page.page.locator(".menu .v-list-item", has_text="Bone").click()
    button.get_by_text("W 1800 L 400").wait_for()


def test_the_value_under_the_pointer_is_told_where_it_is_and_gone_when_it_leaves(a_page: WebPage) -> None:
    x, y = middle_of(a_page, "Axial")
    a_page.page.mouse.move(x - 4, y)
    a_page.page.mouse.move(x, y)
    told = a_page.page.locator(".readout-pointed")
    told.get_by_text(f"{TISSUE} HU").wait_for()
    assert told.count() == 1
    a_page.page.mouse.move(20, 500)
    told.wait_for(state="hidden")


def test_shift_and_the_pointer_lead_the_other_views_to_the_place(a_page: WebPage) -> None:
    sagittal = a_page.page.locator(".view-name", has_text="Sagittal").locator("xpath=..").locator(".readout-slice")
    before = sagittal.inner_text()
    x, y = middle_of(a_page, "Axial")
    a_page.page.mouse.move(x, y)
    a_page.page.keyboard.down("Shift")
    for step in range(1, 6):
        a_page.page.mouse.move(x + 8 * step, y)
        a_page.page.wait_for_timeout(150)
    a_page.page.keyboard.up("Shift")
    a_page.page.locator(".bar .v-btn--active[title^=Crosshair]").wait_for()
    a_page.page.wait_for_function("(told) => trame.state.state.readout_Yellow.slice !== told", arg=before)


def test_a_view_that_scrolls_is_the_only_one_that_is_sent(a_page: WebPage) -> None:
    sent: list[bytes] = []
    a_page.page.wait_for_timeout(3000)  # the still pictures of before
    told = a_page.page.evaluate("trame.state.state.readout_Red.slice")
    page = a_page.page
    page.reload()  # the websocket is heard from its beginning
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: sent.append(data)))
    page.reload()
    page.get_by_text(told).wait_for()
    page.wait_for_timeout(4000)
    x, y = middle_of(a_page, "Axial")
    page.mouse.move(x, y)
    page.wait_for_timeout(1000)
    sent.clear()
    for _ in range(3):
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(400)
    page.wait_for_timeout(1500)
    heads = [one[:500] for one in sent if isinstance(one, bytes) and b"image/jpeg" in one[:500]]
    assert heads
    assert all(b"Red" in one for one in heads)
