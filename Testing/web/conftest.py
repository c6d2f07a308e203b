"""A running server and a real browser; skipped, saying why, where one of them is not installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def a_server() -> Iterator[str]:
    """The address of a server on a free port of this computer, for two users."""
    missing = [name for name in ("trame_slicer", "slicer_layer_dm", "slicer", "nilearn") if find_spec(name) is None]
    if missing:
        pytest.skip(f"the Python package {missing[0]} is not installed; it comes with the web extra or the demo")
    command = [sys.executable, "-m", "APFormerSlicerLib.web", "--port", "0", "--users", "2"]
    with subprocess.Popen(
        command, cwd=SOURCES, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        try:
            yield found.group()
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def a_browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
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
