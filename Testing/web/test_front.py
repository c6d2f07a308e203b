"""Who is let in, and what stays when the server ends."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
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
