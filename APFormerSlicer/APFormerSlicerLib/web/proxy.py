"""Requests of a user's browser, passed on to the user's process; answers and messages passed back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from .sessions import Session

SECRET_HEADER = "X-APFormer-Secret"
# Scripts and styles only from here, and no connection elsewhere: the browser itself refuses what would leave the
# machine. Vue compiles the page's templates in the browser, which needs eval.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOT_KEPT = {"Cache-Control": "no-store"}  # images and results stay in no browser's cache; libraries' files may
LARGEST_MESSAGE = 64 << 20  # bytes, of a websocket, to the browser: pictures of views are some 100 kB
LARGEST_TOLD = 2 << 20  # bytes, from the browser: the process takes half of that
MOST_SOCKETS = 8  # of a session: each open tab has one
_PIECE = 1 << 16
_PIECE_SECONDS = 60.0  # until the next piece of a body has come or gone: a slow line sends 64 kB in 20
_HEARTBEAT_SECONDS = 30.0  # a browser that vanished is noticed
_OF_ONE_CONNECTION = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip


async def pass_on(request: web.Request, client: aiohttp.ClientSession, session: Session) -> web.StreamResponse:
    """The answer of the session's process to the request; 502 when it does not answer."""
    url = f"http://127.0.0.1:{session.port}{request.rel_url}"
    try:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await _pass_on_websocket(request, client, url, session)
        return await _pass_on_request(request, client, url, session.secret)
    except TimeoutError:
        return web.Response(status=408, text="The request came too slowly.")
    except aiohttp.ClientConnectionError:
        return web.Response(status=502, text="The session of this browser does not answer. Load the page again.")


async def _pass_on_request(
    request: web.Request, client: aiohttp.ClientSession, url: str, secret: str
) -> web.StreamResponse:
    body = _pieces(request) if request.can_read_body else None
    headers = _headers(request.headers, secret)
    async with client.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
        kept = _kept(answer.headers)
        if "Last-Modified" not in kept:  # of a file that is the same for everybody
            kept.update(NOT_KEPT)
        kept.update(SAFE_HEADERS)
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        try:
            async for piece in answer.content.iter_chunked(_PIECE):
                async with asyncio.timeout(_PIECE_SECONDS):
                    await response.write(piece)
            await response.write_eof()
        except TimeoutError as error:  # the answer has begun: it can only be broken off
            raise ConnectionAbortedError("the browser does not read") from error
        return response


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body. Raises TimeoutError when the next piece does not come."""
    while True:
        async with asyncio.timeout(_PIECE_SECONDS):
            piece = await request.content.read(_PIECE)
        if not piece:
            return
        yield piece


async def _pass_on_websocket(
    request: web.Request, client: aiohttp.ClientSession, url: str, session: Session
) -> web.StreamResponse:
    if session.sockets >= MOST_SOCKETS:
        return web.Response(status=429, text=f"This session is open in {MOST_SOCKETS} tabs already. Close one.")
    session.sockets += 1
    session.looked_at = True
    try:
        # Uncompressed: pictures are compressed already, and both processes may be on one core.
        inner = await client.ws_connect(
            url, headers={SECRET_HEADER: session.secret}, max_msg_size=LARGEST_MESSAGE, compress=0
        )
        outer = web.WebSocketResponse(max_msg_size=LARGEST_TOLD, compress=False, heartbeat=_HEARTBEAT_SECONDS)
        try:
            await outer.prepare(request)
            await _exchange(outer, inner)
        finally:
            await inner.close()
        await outer.close()
        return outer
    except aiohttp.WSServerHandshakeError as error:
        return web.Response(status=400 if error.status < 500 else 502, text="No websocket was opened.")
    finally:
        session.sockets -= 1


async def _exchange(outer: web.WebSocketResponse, inner: aiohttp.ClientWebSocketResponse) -> None:
    """Copy messages both ways until one side is done."""
    there = asyncio.create_task(_copy(outer, inner))
    back = asyncio.create_task(_copy(inner, outer))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)


async def _copy(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type == aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        else:
            return


def _headers(headers: CIMultiDict[str] | aiohttp.typedefs.LooseHeaders, secret: str) -> CIMultiDict[str]:
    kept = _kept(headers)
    kept.popall("Cookie", None)  # the front's, and no business of the process
    kept.popall(SECRET_HEADER, None)
    kept[SECRET_HEADER] = secret
    return kept


def _kept(headers: aiohttp.typedefs.LooseHeaders) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict(headers)
    for name in _OF_ONE_CONNECTION:
        kept.popall(name, None)
    return kept
