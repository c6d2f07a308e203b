"""The door: lets a browser in, remembers it by a cookie, and passes its requests on to its own process."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import sys
import traceback
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from . import front_pages, strangers
from .attempts import SECONDS, Attempts
from .proxy import NOT_KEPT, SAFE_HEADERS, pass_on
from .sessions import Sessions
from .settings import Settings

COOKIE = "apformer-session-"  # and the port: browsers send a cookie to every port of a host
_ASSETS = Path(__file__).resolve().parent / "assets"
_LAUNCHER = "/paraview/"  # where trame's page asks a launcher for its session
_WAIT_SECONDS = 0.2  # a process that is ready is not announced by the page that says it is not
_CLOSE_SECONDS = 1.0  # for requests that still run when the server ends: open pages would keep it for a minute
_HEAD_SECONDS = 30.0  # for a request's headers, and between two requests of a connection

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """The web server that browsers talk to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.token = None if settings.is_local else secrets.token_urlsafe(24)
        self._sessions = Sessions(settings)
        self._attempts = Attempts()
        self._client: aiohttp.ClientSession | None = None
        self.app = web.Application(middlewares=[self._guard])
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
        response = await self._guarded(request, handler)
        if not response.prepared:
            for name, value in {**SAFE_HEADERS, **NOT_KEPT}.items():
                response.headers.setdefault(name, value)
        return response

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not strangers.is_well_formed(request):
            return _show(front_pages.MALFORMED)
        if self.settings.is_local and not strangers.knows_host(request, self.settings.host):
            return _show(front_pages.WRONG_HOST)
        if strangers.is_of_another_site(request):
            return _show(front_pages.WRONG_ORIGIN)
        try:
            return await handler(request)
        except web.HTTPException as answer:
            return web.Response(status=answer.status, text=answer.reason)
        except ConnectionError:
            raise  # the browser went away: nobody reads an answer
        except Exception as error:  # noqa: BLE001  what went wrong here is told to the server's owner only
            traceback.print_exception(error)
            return _show(front_pages.BROKEN)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/favicon.ico":
            return web.FileResponse(_ASSETS / "icon.svg")
        key = request.cookies.get(_cookie(request), "")
        session = self._sessions.find(key)
        if session is None:
            return await self._let_in(request, key)
        session.asked = asyncio.get_running_loop().time()
        if request.path == "/end":
            if request.method != "POST":
                return web.Response(status=405, text="A session is ended with POST.")
            await self._sessions.end(session)
            return web.Response(status=204)
        if not await session.ready(_WAIT_SECONDS):
            if session.ended is not None:
                return _show(front_pages.FAILED)
            return _show(front_pages.STARTING) if _is_page(request) else web.Response(status=503, text="starting")
        if request.path == "/" and "token" in request.query:
            return web.Response(
                status=302, headers={"Location": "/"}
            )  # out of the address bar, and of screenshots of it
        if request.path == _LAUNCHER:
            return web.json_response({"sessionURL": "ws://use_host/ws", "secret": "wslink-secret"})
        assert self._client is not None
        return await pass_on(request, self._client, session)

    async def _let_in(self, request: web.Request, key: str) -> web.StreamResponse:
        """A session for a browser that has none: when it asks for the page, and knows the token where one is needed.

        Who had a session is told first why it is over, and needs no token.
        """
        if not _is_page(request):
            return web.Response(status=401, text="This browser has no session any more. Load the page again.")
        why = self._sessions.why_ended(key)
        if why is not None and "again" not in request.query:
            return _show(front_pages.ended(why))
        if why is None and not self._knows_token(request):
            return self._refuse_token(request)
        if not strangers.opens_page(request):
            return _show(front_pages.NO_BROWSER)
        if self._sessions.full:
            return _show(front_pages.full(self.settings.users))
        session = await self._sessions.open()
        response = web.Response(status=302, headers={"Location": "/"})
        # Lax: a link in a mail leads back into the running session; other sites' forms and scripts do not reach it.
        response.set_cookie(_cookie(request), session.key, httponly=True, samesite="Lax", path="/")
        return response

    def _knows_token(self, request: web.Request) -> bool:
        said = request.query.get("token", "").encode("utf-8", "surrogateescape")
        return self.token is None or hmac.compare_digest(said, self.token.encode())

    def _refuse_token(self, request: web.Request) -> web.Response:
        """Who tries many has to wait; who has the right one need not, also behind the same address."""
        address = request.remote or ""
        if self._attempts.too_many(address):
            response = _show(front_pages.TOO_MANY)
            response.headers["Retry-After"] = str(round(SECONDS))
            return response
        if "token" in request.query:
            self._attempts.add(address)
        return _show(front_pages.NO_TOKEN)


def _is_page(request: web.Request) -> bool:
    return request.method == "GET" and request.path in ("/", "/index.html")


def _cookie(request: web.Request) -> str:
    assert request.transport is not None
    return f"{COOKIE}{request.transport.get_extra_info('sockname')[1]}"


def _show(page: front_pages.FrontPage) -> web.Response:
    return web.Response(text=page.text(), status=page.status, content_type="text/html", headers=SAFE_HEADERS)


async def serve(settings: Settings) -> None:
    """Listen until the task is cancelled.

    Raises:
        OSError: the address cannot be listened on.
    """
    front = Front(settings)
    runner = runner_of(front)
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


def runner_of(front: Front) -> web.AppRunner:
    """What listens, once it is set up and given an address."""
    return web.AppRunner(
        front.app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_CLOSE_SECONDS,
        keepalive_timeout=_HEAD_SECONDS,
        logger=_quiet_about_nonsense(),
    )


def _quiet_about_nonsense() -> logging.Logger:
    """aiohttp's logger without a traceback for each request that is none: anybody can send thousands."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

    logger = logging.getLogger("apformer.web")
    logger.addFilter(is_ours)
    return logger


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
