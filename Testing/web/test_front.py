"""Who is let in: over HTTP, without a browser."""

from __future__ import annotations

import urllib.error
import urllib.request

from web_server import serving


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_server_for_other_computers_answers_only_to_who_has_the_link(installed: None) -> None:
    with serving("--host", "0.0.0.0") as link:
        address, _, token = link.partition("?token=")
        assert len(token) >= 32
        assert status(address) == 401
        assert status(f"{address}?token={token[:-1]}") == 401
        assert status(f"{address}download/nifti?token={token}") == 401
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(link, timeout=60) as answer:
            assert (answer.status, answer.url) == (200, address)
