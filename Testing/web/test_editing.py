"""Slicer's segment editor on the page: each tool changes the chosen segment, and undo takes it back."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from apformer.files import write_scalar
from web_page import WebPage
from web_samples import a_crop
from web_server import Served

NAME = "Anterior hippocampus"
# Shares of the axial view's width and height: the segment reaches from (0.33, 0.2) to (0.63, 0.45).
INSIDE, ACROSS, APART = ((0.4, 0.3), (0.55, 0.4)), ((0.3, 0.3), (0.45, 0.3)), ((0.3, 0.8), (0.4, 0.8))
AROUND_HALF = ((0.5, 0.1), (0.6, 0.1), (0.7, 0.1), (0.7, 0.35), (0.7, 0.6), (0.6, 0.6), (0.5, 0.6), (0.5, 0.35))


@pytest.fixture(scope="module")
def a_page(a_server: Served, new_user: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> WebPage:
    """A segmented hippocampus in review, with the anterior part chosen."""
    path = tmp_path_factory.mktemp("upload") / "hippocampus.nii.gz"
    write_scalar(path, a_crop())
    opened = WebPage(new_user(), a_server.address)
    opened.upload(path)
    opened.wait_for_image("hippocampus")
    opened.segment()
    opened.press("3")
    opened.page.locator(".segments tr", has_text=NAME).click()
    opened.page.locator(".segments tr.chosen", has_text=NAME).wait_for()
    return opened


@pytest.fixture
def whole(a_page: WebPage) -> Iterator[float]:
    """The segment's volume before the edit; afterwards, undo brings it back."""
    before = a_page.volumes()[NAME]
    yield before
    while a_page.volumes()[NAME] != before:
        is_another = partial(operator.ne, a_page.volumes()[NAME])
        a_page.page.get_by_role("button", name="Undo").click()
        a_page.wait_for_volume(NAME, is_another)
    a_page.press("Escape")
    a_page.page.locator(".tools:not(:has(.v-btn--active))").wait_for()


def take(a_page: WebPage, key: str, tool: str) -> None:
    a_page.press(key)
    a_page.page.locator(".tools .v-btn--active", has_text=tool).wait_for()


def test_paint_adds(a_page: WebPage, whole: float) -> None:
    take(a_page, "p", "Paint")
    a_page.drag("Axial", *ACROSS)
    a_page.wait_for_volume(NAME, lambda volume: volume > whole)


def test_erase_removes_and_redo_removes_it_again(a_page: WebPage, whole: float) -> None:
    take(a_page, "e", "Erase")
    a_page.drag("Axial", *INSIDE)
    erased = a_page.wait_for_volume(NAME, lambda volume: volume < whole)
    a_page.press("Control+z")
    a_page.wait_for_volume(NAME, lambda volume: volume == whole)
    a_page.press("Control+y")
    a_page.wait_for_volume(NAME, lambda volume: volume == erased)


def test_scissors_cut_away_what_a_line_encloses(a_page: WebPage, whole: float) -> None:
    take(a_page, "c", "Scissors")
    a_page.drag("Axial", *AROUND_HALF, AROUND_HALF[0])
    a_page.wait_for_volume(NAME, lambda volume: 0.0 < volume < whole)


def test_threshold_makes_the_segment_of_all_voxels_in_a_range(a_page: WebPage, whole: float) -> None:
    take(a_page, "t", "Threshold")
    a_page.page.get_by_role("button", name="Replace the segment").click()
    a_page.wait_for_volume(NAME, lambda volume: volume > 5 * whole)


def test_islands_keep_the_largest_piece(a_page: WebPage, whole: float) -> None:
    take(a_page, "p", "Paint")
    a_page.drag("Axial", *APART)
    a_page.wait_for_volume(NAME, lambda volume: volume > whole)
    take(a_page, "i", "Islands")
    a_page.page.get_by_role("button", name="Keep the largest").click()
    a_page.wait_for_volume(NAME, lambda volume: volume == whole)
    a_page.page.get_by_role("button", name="Undo").click()
    a_page.wait_for_volume(NAME, lambda volume: volume > whole)
