"""A session's page without a browser and without a process: its scene, its views and its workflow, and workers that a
test plays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from apformer.volume import Volume
from workflow_samples import PlayedWorker, a_block

SHAPE = (6, 8, 8)  # k, j, i
AIR, TISSUE = -1000, 40  # Hounsfield units
SIDE = 300  # pixels of a view
_numbers = itertools.count()


class Seat:
    """Where a user sits.

    Attributes:
        desk, state: of the page. worker: segments. trainer: fine-tunes.
    """

    def __init__(self, application: Any, server: Any, workers: list[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.desk, self.state = application.desk, server.state
        self.worker, self.trainer = workers
        self.page, self._loop = application.page, loop

    def do(self, work: Callable[[], Any]) -> Any:
        """Run it as the session does: within its event loop; then what the page shows is up to date."""

        async def run() -> Any:
            with self.state:
                return work()

        return _run(self._loop, run())

    def act(self, name: str, *arguments: Any) -> None:
        """What a button of the page does."""
        self.do(lambda: self.desk.allowed.act(name, arguments))

    def press(self, key: str) -> None:
        self.act("key", key)

    def set(self, name: str, value: Any) -> None:
        """What a field of the page does."""
        self.do(lambda: self.state.update({name: self.desk.allowed.read_field(name, value)}))

    def wait(self, seconds: float = 0.05) -> None:
        """Let the session's loop run."""
        _run(self._loop, asyncio.sleep(seconds))

    # ---------------------------------------------------------------- what a test needs often

    def load(self, name: str, volume: Volume | None = None) -> Any:
        """An image as if it had been uploaded: it is chosen and shown."""
        from APFormerSlicerLib.web.importing import place

        return self.do(lambda: place(self.desk, volume or a_ct(), name))

    def choose(self, node: Any) -> None:
        self.act("choose_image", node.GetID())

    def segment(self, array: np.ndarray | None = None, model: str = "liver-ct", **told: Any) -> Any:
        """Segment the chosen image with a result of the test's; the segmentation's node."""
        self.begin(model)
        self.finish(array, **told)
        return self.desk.segmentation

    def begin(self, model: str = "liver-ct") -> Any:
        """Start a job, as far as the worker being asked."""
        self.state.step = "segment"
        self.do(lambda: setattr(self.desk.workflow.state, "model", model))
        self.act("segment")
        return self.worker.last

    def finish(self, array: np.ndarray | None = None, asked: Any = None, **told: Any) -> None:
        asked = asked or self.worker.last
        assert asked.job == "segment"
        told.setdefault("made_by", {"date": f"2026-01-02T03:04:{next(_numbers):02d}+01:00"})
        self.do(lambda: asked.finish(a_block(SHAPE) if array is None else array, **told))

    def until(self, wanted: Callable[[dict[str, Any]], Any]) -> None:
        """Let the session's loop run until it is true of the page's state."""
        for _ in range(600):
            if wanted(self.state.to_dict()):
                return
            self.wait()
        raise AssertionError("it never is")

    def told(self, kind: str) -> list[str]:
        """What happened, of the notices of a kind that are shown."""
        return [notice["what"] for notice in self.state.notices if notice["kind"] == kind]


class _Worker(PlayedWorker):
    busy = False

    def start(self) -> None:
        """It is always awake."""


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """Let the loop do the work, also where Playwright has left a loop of its own open, which stands still meanwhile."""
    standing = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return loop.run_until_complete(work)
    finally:
        asyncio._set_running_loop(standing)


@contextmanager
def a_seat(folder: Path) -> Iterator[Seat]:
    """A session in the folder, with the models of $APFORMER_MODELS and those of the program."""
    from APFormerSlicerLib.web.application import Application
    from APFormerSlicerLib.web.settings import Settings
    from trame.app import get_server

    loop = asyncio.new_event_loop()
    workers = []
    for name in ("segments", "trains"):
        (folder / name).mkdir(parents=True)
        workers.append(_Worker(folder / name))
    server = get_server(f"seat-{next(_numbers)}", client_type="vue3")

    async def make() -> Any:
        return Application(server, tuple(workers), Settings().of_session(folder, "secret"))  # type: ignore[arg-type]

    application = _run(loop, make())
    server.state.ready()
    try:
        yield Seat(application, server, workers, loop)
    finally:
        application.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        _run(loop, asyncio.sleep(0))
        loop.close()


def a_ct(shape: tuple[int, int, int] = SHAPE, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Volume:
    """Air with a block of tissue; `at`: where its first voxel lies, RAS in mm."""
    array = np.full(shape, AIR, np.int16)
    array[1:-1, 1:-1, 1:-1] = TISSUE
    matrix = np.diag([2.0, 2.0, 3.0, 1.0])
    matrix[:3, 3] = at
    return Volume(array, matrix, "CT")


def an_mr(shape: tuple[int, int, int] = SHAPE) -> Volume:
    """An image that says that it is of MR."""
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return Volume(array, np.eye(4), "MR")


def drag(a_seat: Seat, view_name: str = "Red") -> None:
    """With the left button, from the middle of a slice view to the right and up."""
    interactor = a_seat.desk.slicer.view_manager.get_view(view_name).interactor()
    interactor.GetRenderWindow().SetSize(SIDE, SIDE)
    interactor.UpdateSize(SIDE, SIDE)

    def at(x: int, y: int, event: str) -> None:
        interactor.SetEventInformation(x, y, 0, 0, chr(0), 0, None)
        interactor.InvokeEvent(event)

    def do() -> None:
        at(150, 150, "EnterEvent")
        at(150, 150, "MouseMoveEvent")
        at(150, 150, "LeftButtonPressEvent")
        at(170, 160, "MouseMoveEvent")
        at(190, 170, "MouseMoveEvent")
        at(190, 170, "LeftButtonReleaseEvent")

    a_seat.do(do)


def window_of(image: Any) -> tuple[float, float]:
    """How an image is shown: window and level."""
    display = image.GetDisplayNode()
    return display.GetWindow(), display.GetLevel()
