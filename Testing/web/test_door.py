"""The door, with sessions that are stand-ins: who gets in, what is refused, and that refusing costs nobody a place."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the browser host is not installed")

import aiohttp
from aiohttp import web
from APFormerSlicerLib.web import attempts, front, proxy, sessions
from APFormerSlicerLib.web.settings import Settings
from web_client import ASKED_BY_A_PERSON, Client, a_visitor, run

FAKE = Path(__file__).resolve().parent / "fake_session.py"
PATHS = ("/", "/index.html", "/ws", "/upload", "/download/nifti", "/end", "/favicon.ico", "/nothing")


class Door:
    """A front that listens. Attributes: front, address, temporary: the folder for users' data."""

    def __init__(self, opened: front.Front, host: str, port: int, temporary: Path) -> None:
        self.front, self.port, self.temporary = opened, port, temporary
        self.address = f"http://{host}:{port}"

    @property
    def sessions(self) -> int:
        return len(self.front._sessions._known)

    async def raw(self, *lines: bytes, body: bytes = b"") -> bytes:
        """The first line of the answer to a request written by hand."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        return answer


@asynccontextmanager
async def a_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **settings: Any) -> AsyncIterator[Door]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sessions, "_COMMAND", (sys.executable, str(FAKE)))
    chosen = Settings(**{"port": 0, "users": 2, **settings})
    opened = front.Front(chosen)
    runner = front.runner_of(opened)
    await runner.setup()
    try:
        await web.TCPSite(runner, chosen.host, 0).start()
        host = "127.0.0.1" if chosen.host == "0.0.0.0" else chosen.host
        yield Door(opened, host, runner.addresses[0][1], tmp_path)
    finally:
        await runner.cleanup()


Open = Callable[..., Any]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    return lambda **settings: a_door(monkeypatch, tmp_path, **settings)


async def status(client: Client, path: str = "/", method: str = "GET", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{client.address}{path}"
    async with client.http.request(method, url, headers=named, allow_redirects=False) as answer:
        await answer.read()
        return answer.status


# -------------------------------------------------------------------- other sites


OF_ANOTHER_SITE = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},  # another port
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe", "Accept": "text/html"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object", "Accept": "text/html"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"},  # prefetch
    {**ASKED_BY_A_PERSON, "Sec-Fetch-Site": "cross-site", "Sec-Purpose": "prefetch;prerender"},
    {**ASKED_BY_A_PERSON, "Purpose": "prefetch"},
    {**ASKED_BY_A_PERSON, "Origin": "http://elsewhere.example"},
    {**ASKED_BY_A_PERSON, "Origin": "null"},
    {"Accept": "image/avif,image/webp,*/*;q=0.8"},  # a picture, of a browser that says no more
    {"Accept": "*/*"},  # a program
]


@pytest.mark.parametrize("headers", OF_ANOTHER_SITE, ids=str)
def test_what_no_person_asked_for_starts_nothing(door: Open, headers: dict[str, str]) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as visitor:
            for _ in range(5):
                async with visitor.http.get(opened.address, headers=headers) as answer:
                    assert answer.status == 403
            assert opened.sessions == 0
            assert await visitor.enter() == 200

    run(test())


def test_a_link_in_a_mail_or_on_another_site_opens_the_page(door: Open) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as visitor:
            from_a_link = {**ASKED_BY_A_PERSON, "Sec-Fetch-Site": "cross-site"}
            async with visitor.http.get(opened.address, headers=from_a_link) as answer:
                assert answer.status == 200
            old = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}  # a browser of before 2023
            async with a_visitor(opened.address) as other, other.http.get(opened.address, headers=old) as answer:
                assert answer.status == 200
            assert opened.sessions == 2

    run(test())


def test_a_page_of_another_site_reaches_no_session_that_is_open(door: Open) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as user:
            assert await user.enter() == 200
            foreign = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}
            for path in PATHS[2:]:
                for method in ("GET", "POST"):
                    assert await status(user, path, method, **foreign) == 403
                    assert await status(user, path, method, Origin="http://127.0.0.1:1") == 403
            assert opened.sessions == 1
            assert await status(user, "/end") == 405  # a picture may ask for it with GET
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await user.http.ws_connect(f"{user.address}/ws", headers={"Origin": "http://elsewhere.example"})
            assert await status(user, "/end", "POST", Origin=opened.address) == 204
            assert opened.sessions == 0

    run(test())


def test_a_session_whose_page_never_connects_frees_its_place(door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_LOOK_SECONDS", 0.6)

    async def test() -> None:
        async with door(users=1) as opened, a_visitor(opened.address) as user, a_visitor(opened.address) as next_one:
            assert await user.enter() == 200
            assert await status(next_one, **ASKED_BY_A_PERSON) == 503
            (folder,) = opened.temporary.glob("apformer-web-*/session-*")
            while opened.sessions:
                await asyncio.sleep(0.05)
            assert await next_one.enter() == 200
            while folder.exists():
                await asyncio.sleep(0.05)
            async with user.http.get(user.address, headers=ASKED_BY_A_PERSON) as answer:
                assert "did not connect" in await answer.text()
            socket_ = await next_one.http.ws_connect(f"{next_one.address}/ws", headers={"Origin": opened.address})
            await asyncio.sleep(1.5)
            assert opened.sessions == 1  # this one is looked at
            await socket_.close()

    run(test())


def test_no_more_users_get_in_than_there_are_places_however_fast_they_come(door: Open) -> None:
    async def test() -> None:
        async with door(users=2) as opened, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            visitor = Client(opened.address, http)
            told = await asyncio.gather(*(status(visitor, **ASKED_BY_A_PERSON) for _ in range(12)))
            assert sorted(told) == [302] * 2 + [503] * 10
            assert opened.sessions == 2

    run(test())


# -------------------------------------------------------------------- addresses and nonsense


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.1.2.3", "localhost", "::1"])
def test_a_server_answers_to_the_link_that_it_prints(door: Open, host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.bind((host, 0))
    except OSError:
        pytest.skip(f"this computer has no address {host}")

    async def test() -> None:
        async with door(host=host) as opened, a_visitor(opened.front.link(opened.port)) as visitor:
            assert await visitor.enter() == 200
            for foreign in ("rebound.example", f"rebound.example:{opened.port}", "192.168.1.2", "127.0.0.1.example"):
                assert await status(visitor, Host=foreign) == 403

    run(test())


MALFORMED = [
    (b"GET / HTTP/1.1", b"Host: [::1"),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1:port"),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1:99999999"),
    (b"GET / HTTP/1.1", b"Host: "),
    (b"GET / HTTP/1.1", b"Host: a b"),
    (b"GET / HTTP/1.1", b"Host: \xff\xfe"),
    (b"GET / HTTP/1.1",),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", b"Host: rebound.example"),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", b"Origin: http://["),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", b"Origin: \xff"),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", b"Cookie: \x01=;;=\xff"),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", b'Cookie: a="\\;b=;=c;apformer-session-1=\xc3\xa4'),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", b"Cookie: " + b"a=b;" * 5000),
    (b"GET / HTTP/1.1", b"Host: 127.0.0.1", *(b"X-%d: a" % number for number in range(500))),
    (b"GET /" + b"a" * 20_000 + b" HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET /?token=\xff\xfe HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET /?token=%ff%fe&token=%00 HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET /%00 HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET /a%0d%0aSet-Cookie:a=b HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET @elsewhere.example/ HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET //elsewhere.example/ HTTP/1.1", b"Host: 127.0.0.1"),
    (b"GET http://elsewhere.example/ HTTP/1.1", b"Host: 127.0.0.1"),
    (b"CONNECT elsewhere.example:80 HTTP/1.1", b"Host: 127.0.0.1"),
    (b"OPTIONS * HTTP/1.1", b"Host: 127.0.0.1"),
    (b"TRACE / HTTP/1.1", b"Host: 127.0.0.1"),
    (b"PUT /upload HTTP/1.1", b"Host: 127.0.0.1", b"Content-Length: 0"),
    (b"POST /upload HTTP/1.1", b"Host: 127.0.0.1", b"Content-Length: -1"),
    (b"POST /upload HTTP/1.1", b"Host: 127.0.0.1", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    (b"nonsense",),
    (b"\x16\x03\x01\x02\x00\x01",),
]


def test_nonsense_gets_a_clean_answer_and_leaves_no_traceback(door: Open, capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with door() as opened:
            for lines in MALFORMED:
                for cookie in (b"", b"Cookie: apformer-session-%d=x" % opened.port):
                    answer = await opened.raw(*lines, *([cookie] if cookie else []))
                    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), (lines[0][:60], answer)
            assert opened.sessions == 0

    run(test())
    told = capfd.readouterr()
    assert "Traceback" not in told.out + told.err


def test_a_known_user_gets_clean_answers_to_nonsense_too(door: Open, capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as user:
            assert await user.enter() == 200
            (cookie,) = user.http.cookie_jar
            known = f"Cookie: {cookie.key}={cookie.value}".encode()
            for lines in MALFORMED:
                answer = await opened.raw(*lines, known)
                assert int(answer.split()[1]) < 500, (lines[0][:60], answer)
            assert await status(user, "/still-there") == 200

    run(test())
    told = capfd.readouterr()
    assert "Traceback" not in told.out + told.err


# -------------------------------------------------------------------- tokens


def test_wrong_tokens_are_limited_and_the_right_one_still_works(door: Open) -> None:
    async def test() -> None:
        async with door(host="0.0.0.0") as opened, a_visitor(opened.address) as visitor:
            wrong = ["", "x", "%ff", "\u00e4\u00f6", "a" * 2000, opened.front.token[:-1], f"{opened.front.token}x"]
            wrong += ["guess"] * attempts.MOST
            told = [await status(visitor, f"/?token={one}", **ASKED_BY_A_PERSON) for one in wrong]
            assert told == [401] * attempts.MOST + [429] * (len(wrong) - attempts.MOST)
            assert opened.sessions == 0
            assert await visitor.enter(f"?token={opened.front.token}") == 200
            async with a_visitor(opened.address) as other:
                assert await status(other, **ASKED_BY_A_PERSON) == 429  # of the same address

    run(test())


def test_who_tries_tokens_is_remembered_by_address_for_a_minute_and_never_more_than_some_thousand() -> None:
    now = 0.0
    tried = attempts.Attempts(clock=lambda: now)
    for _ in range(attempts.MOST):
        assert not tried.too_many("a")
        tried.add("a")
    assert tried.too_many("a")
    assert not tried.too_many("b")
    now = attempts.SECONDS + 1.0
    assert not tried.too_many("a")
    for number in range(10_000):
        tried.add(str(number))
    assert len(tried._wrong) <= 4096


# -------------------------------------------------------------------- what is passed on


def test_answers_carry_the_headers_that_protect_them(door: Open) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as user:
            async with user.http.get(opened.address, headers=ASKED_BY_A_PERSON, allow_redirects=False) as answer:
                cookie = answer.headers["Set-Cookie"]
            assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
            assert await user.enter() == 200
            for path in ("/", "/download/nifti", "/favicon.ico"):
                async with user.http.get(f"{user.address}{path}") as answer:
                    for name, value in proxy.SAFE_HEADERS.items():
                        assert answer.headers[name] == value, (path, name)
                    assert answer.headers["Cache-Control"] == "no-store"

    run(test())


def test_a_session_has_so_many_tabs_and_no_message_is_larger_than_a_page_sends(door: Open) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as user:
            assert await user.enter() == 200
            own = {"Origin": opened.address}
            tabs = [await user.http.ws_connect(f"{user.address}/ws", headers=own) for _ in range(proxy.MOST_SOCKETS)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await user.http.ws_connect(f"{user.address}/ws", headers=own)
            assert refused.value.status == 429
            await tabs[0].send_str("hello")
            assert (await tabs[0].receive()).data == "hello"
            await tabs[0].send_bytes(bytes(proxy.LARGEST_TOLD + 1))
            assert (await tabs[0].receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            await tabs[1].send_str("still here")
            assert (await tabs[1].receive()).data == "still here"
            for tab in tabs:
                await tab.close()

    run(test())


def test_who_sends_slowly_is_cut_off(door: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_HEAD_SECONDS", 1.0)
    monkeypatch.setattr(proxy, "_PIECE_SECONDS", 0.5)

    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as user:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            assert await asyncio.wait_for(reader.read(), 30) == b""  # closed
            writer.close()
            assert await user.enter() == 200
            (cookie,) = user.http.cookie_jar
            head = (b"POST /upload HTTP/1.1", b"Host: 127.0.0.1", b"Content-Length: 1000")
            answer = await opened.raw(*head, f"Cookie: {cookie.key}={cookie.value}".encode(), body=b"a few")
            assert b" 408 " in answer

    run(test())


def test_users_do_not_get_into_each_others_sessions(door: Open) -> None:
    async def test() -> None:
        async with door() as opened, a_visitor(opened.address) as one, a_visitor(opened.address) as two:
            folders = []
            for user in (one, two):
                assert await user.enter() == 200
                async with user.http.get(f"{user.address}/anything") as answer:
                    folders.append(json.loads(await answer.text())["folder"])
            assert len(set(folders)) == 2
            forged = {"X-APFormer-Secret": "guess", "Cookie": "apformer-session-1=guess"}
            stranger = f"{opened.address}/anything"
            async with a_visitor(opened.address) as third, third.http.get(stranger, headers=forged) as answer:
                assert answer.status == 401

    run(test())
