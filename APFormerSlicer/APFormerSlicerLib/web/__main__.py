"""`python -m APFormerSlicerLib.web`, which is `apformer serve`."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from contextlib import suppress

from .settings import Settings, read_settings

_NEEDED = ("aiohttp", "trame", "trame_slicer", "slicer")


def main() -> int:
    """Exit status: 0 ended by the user, 1 could not be started."""
    settings = read_settings()
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The browser host needs the Python package {missing[0].replace('_', '-')}, which is not installed. "
            "Nothing was started. Start it with `python3 run.py serve`, which installs it, or run "
            '`python -m pip install "apformer-slicer[web]"`.',
            file=sys.stderr,
        )
        return 1
    from .front import complain, refuse

    try:
        asyncio.run(_until_told_to_end(settings))
    except OSError as error:
        return complain(refuse(error, settings))
    except KeyboardInterrupt:
        pass
    return 0


async def _until_told_to_end(settings: Settings) -> None:
    from .front import serve

    task = asyncio.create_task(serve(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows' loop; there, Ctrl-C is a KeyboardInterrupt
            loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    sys.exit(main())
