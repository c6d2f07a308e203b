"""What whoever starts the server decides."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_PORT = 8137
_MOST_USERS = 32  # a process with a scene and a warm worker has about 1 GB


@dataclass(frozen=True)
class Settings:
    """
    Attributes:
        host, port: where to listen; port 0 takes a free one.
        users: how many may work at once, each in a process of their own.
        upload_mb: how much one user may keep: uploads, unpacked, and the images that are loaded from them.
        idle_minutes: after which a session that nobody looks at ends, unless a job of it runs.
        site: folder of the site's data set, which all users share; None: each session has its own, which goes with it.
        open_browser: open the page on this computer.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    users: int = 4
    upload_mb: int = 2000
    idle_minutes: float = 30.0
    site: Path | None = None
    open_browser: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name of the network
            return False

    def of_session(self, folder: Path, secret: str) -> dict[str, Any]:
        """What a user's process is told."""
        return {
            "folder": str(folder),
            "secret": secret,
            "upload_bytes": self.upload_mb * 1_000_000,
            "idle_seconds": self.idle_minutes * 60.0,
            "site": None if self.site is None else str(self.site.absolute()),
            "own_models": self.site is None and not self.is_local,
            "hide_paths": not self.is_local,
        }


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """From the command line; leaves through SystemExit(2), with what is wrong, when it cannot be read."""
    parser = argparse.ArgumentParser(
        prog="apformer serve", description="The workflow in a browser, on this computer only unless --host says more."
    )
    default = Settings()
    parser.add_argument("--host", default=default.host, help="address to listen on; default: this computer only")
    parser.add_argument("--port", type=_number(0, 65535), default=default.port, help=f"default: {default.port}")
    parser.add_argument("--users", type=_number(1, _MOST_USERS), default=default.users, help="at once; default: 4")
    parser.add_argument(
        "--upload-mb", type=_number(1, 100_000), default=default.upload_mb, help="of a user, unpacked; default: 2000"
    )
    parser.add_argument(
        "--idle-minutes", type=float, default=default.idle_minutes, help="after which an unused session ends"
    )
    parser.add_argument(
        "--site", type=Path, metavar="FOLDER", help="the site's data set, shared by all users; default: one per session"
    )
    parser.add_argument("--open", action="store_true", dest="open_browser", help="open the page in this browser")
    return Settings(**vars(parser.parse_args(arguments)))


def _number(low: int, high: int) -> Any:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    read.__name__ = "number"  # argparse names it in its message
    return read
