"""Requests of a user's browser, passed on to the user's process; answers and messages passed back."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

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
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
LARGEST_MESSAGE = 64 << 20  # bytes, of a websocket: pictures of views are some 100 kB
_OF_ONE_CONNECTION = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip


async def pass_on(request: web.Request, client: aiohttp.ClientSession, port: int, secret: str) -> web.StreamResponse:
    """The answer of the process to the request; 502 when it does not answer."""
    url = f"http://127.0.0.1:{port}{request.rel_url}"
    try:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await _pass_on_websocket(request, client, url, secret)
        return await _pass_on_request(request, client, url, secret)
    except aiohttp.ClientConnectionError:
        return web.Response(status=502, text="The session of this browser does not answer. Load the page again.")


async def _pass_on_request(
    request: web.Request, client: aiohttp.ClientSession, url: str, secret: str
) -> web.StreamResponse:
    body = request.content if request.can_read_body else None
    headers = _headers(request.headers, secret)
    async with client.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
        response = web.StreamResponse(status=answer.status, headers={**_kept(answer.headers), **SAFE_HEADERS})
        await response.prepare(request)
        async for chunk in answer.content.iter_chunked(1 << 16):
            await response.write(chunk)
        await response.write_eof()
        return response


async def _pass_on_websocket(
    request: web.Request, client: aiohttp.ClientSession, url: str, secret: str
) -> web.WebSocketResponse:
    # Uncompressed: pictures are compressed already, and both processes may be on one core.
    inner = await client.ws_connect(url, headers={SECRET_HEADER: secret}, max_msg_size=LARGEST_MESSAGE, compress=0)
    outer = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, compress=False)
    await outer.prepare(request)
    there = asyncio.create_task(_copy(outer, inner))
    back = asyncio.create_task(_copy(inner, outer))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        await inner.close()
        await outer.close()
    return outer


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
