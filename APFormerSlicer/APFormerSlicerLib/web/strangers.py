"""What a request says of where it comes from, before anything is known of who sent it.

A page of another site can make a browser send requests here (`<img src=http://127.0.0.1:8137/>`), and a name of another
site can be made to mean this computer. Neither may start anything, nor reach a session.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

METHODS = ("GET", "HEAD", "POST")
_OWN = ("same-origin", "none")  # what browsers say of a page's own requests, and of an address that was typed
_AHEAD = ("prefetch", "prerender", "preview")


def knows_host(request: web.Request, host: str) -> bool:
    """Whether the request names this computer as seen from itself, or `host`, which the server listens on."""
    try:
        named = (urlsplit(f"//{request.host}").hostname or "").rstrip(".")
        urlsplit(f"//{request.host}").port  # noqa: B018  raises for what is no number
    except ValueError:
        return False
    if named in ("localhost", host.casefold()):
        return True
    try:
        return ipaddress.ip_address(named).is_loopback
    except ValueError:
        return False


def is_well_formed(request: web.Request) -> bool:
    """Whether it is a request as browsers send it, for a path of this server."""
    return request.method in METHODS and request.raw_path.startswith("/") and request.path.isprintable()


def is_of_another_site(request: web.Request) -> bool:
    """Whether a page of another site sent it. Following a link to the page is no request of that site, but the user's.

    A browser says so in Sec-Fetch-Site, and for what changes something in Origin, which old ones send too.
    """
    origin = request.headers.get("Origin")
    if origin is not None and _place_of(origin) != request.host:
        return True
    site = request.headers.get("Sec-Fetch-Site")
    return site is not None and site not in _OWN and not opens_page(request)


def opens_page(request: web.Request) -> bool:
    """Whether a person opens the page with it: not a picture, a frame, a script or a look ahead that names it.

    Browsers of before 2023, and all of them when the server is another computer without TLS, say no more than that they
    would like a page; what says nothing at all is no browser.
    """
    if request.method != "GET" or request.path not in ("/", "/index.html"):
        return False
    purpose = request.headers.get("Sec-Purpose", request.headers.get("Purpose", request.headers.get("X-Moz", "")))
    if any(word in purpose for word in _AHEAD):
        return False
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is None:
        return "text/html" in request.headers.get("Accept", "")
    return mode == "navigate" and request.headers.get("Sec-Fetch-Dest") == "document"


def _place_of(origin: str) -> str:
    """ "http://127.0.0.1:8137" -> "127.0.0.1:8137"; nothing for what is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
