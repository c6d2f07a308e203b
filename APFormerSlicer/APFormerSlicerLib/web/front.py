"""The door: lets a browser in, remembers it by a cookie, and passes its requests on to its own process."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import sys
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from . import front_pages
from .proxy import SAFE_HEADERS, pass_on
from .sessions import Sessions
from .settings import Settings

COOKIE = "apformer-session-"  # and the port: browsers send a cookie to every port of a host
_ASSETS = Path(__file__).resolve().parent / "assets"
_LAUNCHER = "/paraview/"  # where trame's page asks a launcher for its session
_WAIT_SECONDS = 0.2  # a process that is ready is not announced by the page that says it is not
_CLOSE_SECONDS = 1.0  # for requests that still run when the server ends: open pages would keep it for a minute

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """The web server that browsers talk to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.token = None if settings.is_local else secrets.token_urlsafe(24)
        self._sessions = Sessions(settings)
        self._client: aiohttp.ClientSession | None = None
        self.app = web.Application(middlewares=[self._guard], client_max_size=settings.upload_mb * 1_000_000)
        self.app.router.add_route("*", "/{path:.*}", self._answer)
        self.app.cleanup_ctx.append(self._life)

    def link(self, port: int) -> str:
        """Where the page is, for the person who started the server."""
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "") else self.settings.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")

    async def _life(self, _app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)) as client:
            self._client = client
            await self._sessions.prepare()
            yield
            await self._sessions.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody without the token, no other site's page, and no name that another site gave to this computer."""
        if self.settings.is_local and _host_of(request.host) not in ("localhost", "127.0.0.1", "::1"):
            return _show(front_pages.WRONG_HOST)
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return _show(front_pages.WRONG_ORIGIN)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(SAFE_HEADERS)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/favicon.ico":
            return web.FileResponse(_ASSETS / "icon.svg")
        key = request.cookies.get(_cookie(request), "")
        session = self._sessions.find(key)
        if session is None:
            return await self._let_in(request, key)
        if request.method == "POST" and request.path == "/end":
            await self._sessions.end(session)
            return web.Response(status=204)
        if not await session.ready(_WAIT_SECONDS):
            if session.ended is not None:
                return _show(front_pages.FAILED)
            return _show(front_pages.STARTING) if _is_page(request) else web.Response(status=503, text="starting")
        if request.path == "/" and "token" in request.query:
            return web.HTTPFound("/")  # out of the address bar, and of screenshots of it
        if request.path == _LAUNCHER:
            return web.json_response({"sessionURL": "ws://use_host/ws", "secret": "wslink-secret"})
        assert self._client is not None and session.port is not None
        return await pass_on(request, self._client, session.port, session.secret)

    async def _let_in(self, request: web.Request, key: str) -> web.StreamResponse:
        """A session for a browser that has none: when it asks for the page, and knows the token where one is needed.

        Who had a session is told first why it is over, and needs no token.
        """
        if not _is_page(request):
            return web.Response(status=401, text="This browser has no session any more. Load the page again.")
        why = self._sessions.why_ended(key)
        if why is not None and "again" not in request.query:
            return _show(front_pages.ended(why))
        known = why is not None or self.token is None
        if not known and not hmac.compare_digest(request.query.get("token", ""), self.token or ""):
            return _show(front_pages.NO_TOKEN)
        if self._sessions.full:
            return _show(front_pages.full(self.settings.users))
        session = await self._sessions.open()
        response = web.HTTPFound("/")
        response.headers.update(SAFE_HEADERS)
        # Lax: a link in a mail leads back into the running session; other sites' forms and scripts do not reach it.
        response.set_cookie(_cookie(request), session.key, httponly=True, samesite="Lax", path="/")
        return response


def _is_page(request: web.Request) -> bool:
    return request.method == "GET" and request.path in ("/", "/index.html")


def _cookie(request: web.Request) -> str:
    assert request.transport is not None
    return f"{COOKIE}{request.transport.get_extra_info('sockname')[1]}"


def _host_of(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def _show(page: front_pages.FrontPage) -> web.Response:
    return web.Response(text=page.text(), status=page.status, content_type="text/html", headers=SAFE_HEADERS)


async def serve(settings: Settings) -> None:
    """Listen until the task is cancelled.

    Raises:
        OSError: the address cannot be listened on.
    """
    front = Front(settings)
    runner = web.AppRunner(front.app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        link = front.link(runner.addresses[0][1])
        print(announcement(settings, link), flush=True)
        if settings.open_browser:
            await asyncio.to_thread(webbrowser.open, link)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def announcement(settings: Settings, link: str) -> str:
    """What is printed once, with the link, and with what the server exposes."""
    lines = [f"The page is at {link}"]
    if settings.is_local:
        lines.append("Only this computer can reach it.")
    else:
        lines += [
            f"Every computer that can reach {settings.host} can open this link; without the link nobody can.",
            "Who has it can upload images, compute on this machine and download what is shown in their own session.",
            "Images and results travel unencrypted: use it in a network that you trust, or behind a TLS proxy.",
        ]
    if settings.site is not None:
        lines.append(f"All users share the data set in {settings.site}, and the models that learn from it.")
    lines.append("Ctrl-C ends it; what users uploaded is removed.")
    return "\n".join(lines)


def refuse(error: OSError, settings: Settings) -> str:
    """What to tell when the address cannot be listened on."""
    return (
        f"The address {settings.host}:{settings.port} cannot be used ({error.strerror or error}). "
        "Nothing was started. Choose another --port, or end the program that uses this one."
    )


def complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1
