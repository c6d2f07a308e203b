"""Several users of one machine, and what becomes of a session whose worker or process dies, or that is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apformer.files import write_scalar
from web_page import WebPage
from web_samples import a_crop
from web_server import Served

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def an_upload(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "hippocampus.nii.gz"
    write_scalar(path, a_crop())
    return path


@pytest.fixture(scope="module")
def a_page(a_server: Served, new_user: Callable[[], Any], an_upload: Path) -> WebPage:
    opened = WebPage(new_user(), a_server.address)
    opened.upload(an_upload)
    opened.wait_for_image("hippocampus")
    return opened


def test_two_users_take_turns_and_both_are_served(
    a_page: WebPage, a_server: Served, a_user: Any, an_upload: Path
) -> None:
    other = WebPage(a_user, a_server.address)
    other.upload(an_upload)
    other.wait_for_image("hippocampus")
    a_page.press("2")
    a_page.page.locator(".estimate").wait_for()  # its worker is awake
    with a_server.held():
        a_page.start()
        other.start()
        other.page.locator(".job-message", has_text="waiting: 1 job of this machine's users before yours").wait_for()
        a_page.page.locator(".job").wait_for()
    first, second = a_page.wait_for_result(), other.wait_for_result()
    assert first == second
    assert min(first.values()) > 0.5
    other.end_session()


def test_a_third_browser_is_told_that_every_place_is_taken(
    a_page: WebPage, a_server: Served, new_user: Callable[[], Any]
) -> None:
    other = WebPage(new_user(), a_server.address)
    third = new_user().new_page()
    assert third.goto(a_server.address).status == 503
    assert "2" in third.locator("main").inner_text()
    other.end_session()
    third.reload()
    third.get_by_text("Drop NIfTI").wait_for(timeout=90_000)
    assert a_page.page.locator(".bar-image", has_text="hippocampus").is_visible()
    third.get_by_title("End the session").click()
    third.locator(".help").get_by_text("End the session", exact=True).click()
    third.get_by_text("Your session is over").wait_for(timeout=90_000)


def test_a_worker_that_dies_is_told_with_a_reason_and_the_next_job_runs(a_page: WebPage, a_server: Served) -> None:
    a_page.press("2")
    a_page.page.locator(".estimate").wait_for()
    workers = a_server.processes("apformer.jobs")
    with a_server.held():
        a_page.start()
    for worker in workers:
        worker.kill()
    _, meaning, remedy = a_page.error("The program that does the work")
    assert "the job is lost" in meaning
    assert remedy
    assert min(a_page.segment().values()) > 0.5
    assert not {worker.pid for worker in workers} & {worker.pid for worker in a_server.processes("apformer.jobs")}


def test_a_session_whose_process_dies_is_told_why_and_another_one_starts(
    a_page: WebPage, a_server: Served, an_upload: Path
) -> None:
    ended = [one for one in a_server.processes("APFormerSlicerLib.web.session") if one.children()]
    assert len(ended) == 1
    ended[0].kill()
    ended[0].wait(60)
    a_page.text("Its process ended with status").wait_for()
    a_page.text("Start a new session").click()
    a_page.wait_until_usable()
    assert a_page.text("No image loaded").is_visible()


def test_what_a_user_uploaded_is_removed_with_the_session(a_page: WebPage, a_server: Served, an_upload: Path) -> None:
    a_page.upload(an_upload)
    a_page.wait_for_image("hippocampus")
    a_page.segment()
    (upload,) = [path for path in a_server.files() if path.name == an_upload.name]
    private = next(folder for folder in upload.parents if folder.name.startswith("session-"))
    a_page.end_session()
    assert not private.exists()
    a_page.text("Start a new session").click()
    a_page.wait_until_usable()
    assert a_page.text("No image loaded").is_visible()
