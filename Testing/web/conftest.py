"""Running servers and a real browser; skipped, saying why, where one of them is not installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

HERE = Path(__file__).resolve().parent
# The samples of other rooms: a data set, small models, a worker that a test plays.
for folder in (HERE, HERE.parent / "engine", HERE.parent / "workflow"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from web_page import WebPage  # noqa: E402
from web_server import OFFLINE, Served, chromium, missing, serving  # noqa: E402

if TYPE_CHECKING:
    from desk_samples import Seat


@pytest.fixture(scope="session")
def installed() -> None:
    if missing():
        pytest.skip(f"the Python package {missing()} is not installed; it comes with the web extra or the demo")


@pytest.fixture(scope="module")
def a_server(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of this computer's user, for two users and for small uploads."""
    with serving("--users", "2", "--upload-mb", "8", models=tmp_path_factory.mktemp("models")) as server:
        yield server


@pytest.fixture(scope="session")
def a_browser() -> Iterator[Any]:
    """Chromium, which reaches nothing but this computer."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=list(OFFLINE))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def new_user(a_browser: Any) -> Iterator[Callable[[], Any]]:
    """Makes browsers of their own, with their own cookies."""
    contexts = []

    def make() -> Any:
        contexts.append(a_browser.new_context(viewport={"width": 1366, "height": 768}))
        return contexts[-1]

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def a_user(new_user: Callable[[], Any]) -> Any:
    return new_user()


@pytest.fixture(scope="module")
def a_page(a_server: Served, new_user: Callable[[], Any]) -> WebPage:
    """A user's page, which the tests of a file share: starting one takes seconds."""
    return WebPage(new_user(), a_server.address)


@pytest.fixture(scope="session")
def small_models(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slices and volumes for MR, photos for colour, liver-ct for CT: untrained ones, with two labels each."""
    from workflow_samples import save_models

    root = tmp_path_factory.mktemp("small-models")
    save_models(root)
    return root


@pytest.fixture
def a_seat(small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seat]:
    """A session without a browser, whose workers the test plays."""
    from desk_samples import a_seat

    monkeypatch.setenv("APFORMER_MODELS", str(shutil.copytree(small_models, tmp_path / "models")))
    with a_seat(tmp_path / "session") as seat:
        yield seat
