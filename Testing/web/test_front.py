"""Who is let in, and what stays when the server ends."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from APFormerSlicerLib.web.settings import Settings
from web_page import WebPage
from web_server import Served, serving


@pytest.fixture(scope="module")
def a_public_server(installed: None) -> Iterator[Served]:
    """A server that other computers can reach."""
    with serving("--host", "0.0.0.0") as server:
        yield server


def status(request: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_server_for_other_computers_answers_only_to_who_has_the_link(a_public_server: Served) -> None:
    address, _, token = a_public_server.link.partition("?token=")
    assert len(token) >= 32
    assert status(address) == 401
    assert status(f"{address}?token={token[:-1]}") == 401
    assert status(f"{address}download/nifti?token={token}") == 401


def test_a_browser_without_the_token_is_told_so_and_one_with_it_works(a_public_server: Served, new_user: Any) -> None:
    stranger = new_user().new_page()
    assert stranger.goto(a_public_server.address).status == 401
    assert "link" in stranger.locator("main").inner_text()
    assert stranger.get_by_text("Drop NIfTI").count() == 0
    invited = WebPage(new_user(), a_public_server.link)
    assert "token" not in invited.page.url  # nor in pictures of the address bar
    invited.page.goto(a_public_server.address)
    invited.wait_until_usable()
    invited.end_session()
    assert stranger.reload().status == 401


def test_whoever_starts_a_server_for_others_is_told_what_it_exposes(installed: None) -> None:
    from APFormerSlicerLib.web.front import announcement

    link = "http://ward:8137/?token=secret"
    told = announcement(Settings(host="0.0.0.0", site=Path("/data/livers")), link)
    assert told.count(link) == 1
    for exposed in ("Every computer that can reach 0.0.0.0", "upload images", "unencrypted", "All users share"):
        assert exposed in told
    own = announcement(Settings(), "http://127.0.0.1:8137/")
    assert "Only this computer can reach it." in own
    assert "Every computer" not in own


def test_a_session_that_nobody_looks_at_ends_and_its_files_go(installed: None, new_user: Any) -> None:
    with serving("--idle-minutes", "0.05") as server:
        user = new_user()
        WebPage(user, server.link).page.close()
        folders = list(server.temporary.glob("apformer-web-*/session-*"))
        assert folders
        until = time.monotonic() + 90
        while any(folder.exists() for folder in folders) and time.monotonic() < until:
            time.sleep(0.5)
        assert not any(folder.exists() for folder in folders)
        page = user.new_page()
        page.goto(server.address)
        assert "Nobody looked at it for a while" in page.locator("main").inner_text()


def test_another_sites_page_and_another_name_of_this_computer_are_turned_away(a_server: Served) -> None:
    foreign = urllib.request.Request(a_server.address, headers={"Origin": "http://elsewhere.example"})
    renamed = urllib.request.Request(a_server.address, headers={"Host": "rebound.example"})
    assert (status(foreign), status(renamed)) == (403, 403)


def test_nothing_stays_when_the_server_ends(installed: None) -> None:
    with serving() as server:
        assert list(server.temporary.glob("apformer-web-*/session-*"))
        server.process.terminate()
        server.process.wait(30)
        assert list(server.temporary.iterdir()) == []
