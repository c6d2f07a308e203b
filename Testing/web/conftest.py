"""Running servers and a real browser; skipped, saying why, where one of them is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "engine"):  # the engine's samples: a data set and a small model
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from web_server import chromium, missing, serving  # noqa: E402


@pytest.fixture(scope="session")
def installed() -> None:
    if missing():
        pytest.skip(f"the Python package {missing()} is not installed; it comes with the web extra or the demo")


@pytest.fixture(scope="session")
def a_server(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this computer's user, for two users."""
    with serving("--users", "2", models=tmp_path_factory.mktemp("models")) as address:
        yield address


@pytest.fixture(scope="session")
def a_browser() -> Iterator[Any]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def a_user(a_browser: Any) -> Iterator[Any]:
    """A browser of its own, with its own cookies."""
    context = a_browser.new_context(viewport={"width": 1366, "height": 768})
    yield context
    context.close()
