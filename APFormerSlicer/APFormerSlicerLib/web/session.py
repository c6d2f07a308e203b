"""One user's process: a scene, its workflow, the page that drives it, and the web server behind the front."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apformer.bundles.library import MODELS_VARIABLE
from apformer.jobs import JobClient
from apformer.jobs.scratch import own, remove_if_left

from .lines import FrontLine, Message

_LOOK_SECONDS = 5.0  # between looks at whether anybody is there
_END_SECONDS = 15.0  # after the front is gone, for an end in good order; then the process ends whatever it does


def main() -> None:
    """Serve until the front goes away, or nobody has looked for long."""
    line = FrontLine()
    settings = line.settings()
    folder = Path(settings["folder"])
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    own(folder)
    # Whatever a library or a worker leaves goes with the session.
    os.environ["TMPDIR"] = os.environ["TEMP"] = os.environ["TMP"] = tempfile.tempdir = str(temporary)
    os.environ["WSLINK_READY_MSG"] = ""
    if settings["own_models"]:  # strangers share no models: pictures of validation cases are in them
        os.environ[MODELS_VARIABLE] = str(folder / "models")
    # A front that was killed removes nothing: its end is heard from the first moment on, also while the scene is made.
    line.listen(_END_SECONDS, at_last=lambda: remove(folder))
    try:
        asyncio.run(_serve(line, settings))
    finally:
        remove(folder)


async def _serve(line: FrontLine, settings: Message) -> None:
    from trame.app import get_server

    from .application import Application
    from .proxy import SECRET_HEADER
    from .transfer import only_with
    from .turn_worker import TurnWorker

    loop = asyncio.get_running_loop()
    server = get_server("apformer", client_type="vue3")
    folder = Path(settings["folder"])

    def on_main_thread(call: Callable[[], None]) -> None:
        def flushed() -> None:
            with server.state:
                call()

        loop.call_soon_threadsafe(flushed)

    clients = [JobClient(folder / "logs", dispatch=on_main_thread) for _ in range(2)]
    workers = (TurnWorker(clients[0], line.say), TurnWorker(clients[1], line.say))
    application = Application(server, workers, settings)
    present = Presence(server, workers, float(settings["idle_seconds"]))

    def hear(message: Message | None) -> None:
        if message is None:
            loop.call_soon_threadsafe(present.gone.set)
            return
        for worker in workers:
            on_main_thread(lambda worker=worker: worker.hear(message))  # type: ignore[misc]

    def bind(bound: Any) -> None:
        bound.app.middlewares.append(only_with(settings["secret"], SECRET_HEADER))
        application.transfer.add_routes(bound.app)
        for handler in bound._ws_handlers:  # wslink has no other way to get between
            application.gate.close_over(handler)

    server.controller.on_server_bind.add(bind)
    server.controller.on_server_ready.add(lambda **_: line.say({"ready": server.port}))
    line.hear(hear)
    coroutine = server.start(
        exec_mode="coroutine",
        host="127.0.0.1",
        port=0,
        timeout=0,
        open_browser=False,
        show_connection_info=False,
        disable_logging=True,
        thread=True,  # no signal handlers: the front says when it is over
    )
    serving = asyncio.create_task(coroutine)
    try:
        await present.until_gone()
    finally:
        application.close()
        await asyncio.gather(*(asyncio.to_thread(client.close) for client in clients))
        serving.cancel()
        remove(folder)
        line.close_now()  # VTK objects are not taken apart one by one: that is slow, and nothing is left to save


def remove(folder: Path) -> None:
    """Remove a session's folder; and the one that it lies in, when the front is gone and no other session is there."""
    shutil.rmtree(folder, ignore_errors=True)
    remove_if_left(folder.parent)


class Presence:
    """Whether anybody looks at the page, or waits for a job of it."""

    def __init__(self, server: Any, workers: tuple[Any, ...], idle_seconds: float) -> None:
        self.gone = asyncio.Event()
        self._server, self._workers, self._idle = server, workers, idle_seconds
        self._seen = asyncio.get_running_loop().time()

    async def until_gone(self) -> None:
        """Return when the front is gone, or nobody was there for the idle time."""
        loop = asyncio.get_running_loop()
        while not self.gone.is_set():
            if self._looked_at() or any(worker.busy for worker in self._workers):
                self._seen = loop.time()
            elif loop.time() - self._seen > self._idle:
                return
            try:
                await asyncio.wait_for(self.gone.wait(), min(_LOOK_SECONDS, self._idle))
            except TimeoutError:
                continue

    def _looked_at(self) -> bool:
        bound = self._server._server  # wslink's; trame tells of clients that come and go, but not how many are there
        return bound is not None and any(handler.connections for handler in bound._ws_handlers)


if __name__ == "__main__":
    main()
