"""Small pages that the front shows in place of a session's own: what is the matter, what it means, what to do."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

_TEMPLATE = Path(__file__).resolve().parent / "assets" / "front.html"


@dataclass(frozen=True)
class FrontPage:
    """
    Attributes:
        status: of HTTP.
        again_seconds: after which the browser asks again by itself; 0: it does not.
        link: where the remedy leads; "" when it is only a text.
    """

    what: str
    meaning: str
    remedy: str
    status: int
    again_seconds: int = 0
    link: str = ""

    def text(self) -> str:
        """The page, in HTML."""
        remedy = html.escape(self.remedy)
        values = {
            "refresh": f'<meta http-equiv="refresh" content="{self.again_seconds}" />' if self.again_seconds else "",
            "what": html.escape(self.what),
            "meaning": html.escape(self.meaning),
            "remedy": f'<a href="{html.escape(self.link)}">{remedy}</a>' if self.link else remedy,
        }
        text = _TEMPLATE.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", value)
        return text


WRONG_HOST = FrontPage(
    "This server is for this computer only.",
    "The address in the request is not one of this computer's own, so the request may come from another site.",
    "Open the page as http://127.0.0.1 or http://localhost, with the port that was printed.",
    403,
)
WRONG_ORIGIN = FrontPage(
    "The request came from a page of another site.",
    "It was refused, so that other sites cannot act in your name.",
    "Open the page by its own link.",
    403,
)
MALFORMED = FrontPage(
    "The request could not be understood.",
    "Browsers do not send such requests, so nothing was done.",
    "Open the page by its own link.",
    400,
)
NO_BROWSER = FrontPage(
    "A session is started by opening the page in a browser.",
    "The request was not that of a person who opens a page, so nothing was started.",
    "Open the page by its own link, in a browser.",
    403,
)
TOO_MANY = FrontPage(
    "Too many wrong tokens came from this address.",
    "Others are not affected; the right link is still taken.",
    "Open the link that was printed when the server was started, or wait a minute.",
    429,
)
BROKEN = FrontPage(
    "Something unexpected happened.",
    "The request was not answered; what the server printed says why.",
    "Load the page again; if it happens again, report it with the server's output.",
    500,
)
NO_TOKEN = FrontPage(
    "This page needs the link with the token.",
    "Without it nobody can see or compute anything here.",
    "Open the link that was printed when the server was started, or ask whoever started it.",
    401,
)
STARTING = FrontPage(
    "Starting your session",
    "The views and the segment editor are being loaded; this takes a few seconds.",
    "The page appears by itself.",
    200,
    again_seconds=1,
)
FAILED = FrontPage(
    "Your session could not be started.",
    "The process that holds it ended at once; what the server printed says why.",
    "Load the page again; if it happens again, start the server with `python3 run.py serve`.",
    500,
)


def full(users: int) -> FrontPage:
    """Every place is taken."""
    return FrontPage(
        f"All {users} places are taken.",
        f"Each user has a process of their own, and this machine has room for {users}.",
        "Wait until somebody is done, or ask for a larger --users.",
        503,
        again_seconds=10,
    )


def ended(why: str) -> FrontPage:
    """A session is over. why: a clause without its full stop."""
    return FrontPage(
        "Your session is over.",
        f"{why}. What was uploaded and made in it was removed from the server; models that you adopted and cases of a "
        "shared data set are kept.",
        "Start a new session",
        200,
        link="/?again",
    )
