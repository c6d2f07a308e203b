"""Make the README's pictures of the page from the real program: `.venv/bin/python Testing/web/pictures.py [FOLDER]`.

The views show the demonstration's volume. The picture of fine-tuning needs hippocampus-mr of the labelled data, whose
validation cases become a site's data set; without them it stays as it is. `--size 3840x2160` shows another screen.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from apformer.bundles import ModelLibrary
from apformer.datasets import SiteDataset
from apformer.files import read_volume
from PIL import Image
from playwright.sync_api import sync_playwright
from web_page import WebPage
from web_server import OFFLINE, Served, chromium, serving

ROOT = Path(__file__).resolve().parents[2]
MODEL = "hippocampus-mr"
_CASES = 12
_COLOURS = 256  # a palette: 150 kB instead of 400
_ZOOM_NOTCHES = 4
_DRAWN_MS = 3000  # until the sharp pictures of all views are there


class Camera:
    """Takes pictures of a page into a folder."""

    def __init__(self, opened: WebPage, folder: Path) -> None:
        self._opened, self._folder = opened, folder

    def take(self, name: str) -> None:
        self._opened.page.mouse.move(2, 2)  # no tooltip
        self._opened.page.wait_for_timeout(_DRAWN_MS)
        picture = Image.open(io.BytesIO(self._opened.page.screenshot())).convert("RGB")
        path = self._folder / f"browser-{name}.png"
        picture.quantize(_COLOURS, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB", flush=True)


def take_all(folder: Path, size: tuple[int, int], minutes: float) -> None:
    """Walk through the page and take each picture on the way."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        sync_playwright() as started,
    ):
        cases = _a_site(Path(temporary) / "site")
        with serving("--site", str(cases), models=Path(temporary) / "models") as server:
            browser = started.chromium.launch(executable_path=chromium(), args=list(OFFLINE))
            user = browser.new_context(viewport={"width": size[0], "height": size[1]})
            _walk(user, server, folder, minutes if cases.is_dir() else 0.0)
            browser.close()


def _walk(user: Any, server: Served, folder: Path, minutes: float) -> None:
    opened = WebPage(user, server.link)
    camera = Camera(opened, folder)
    opened.load_demo()
    opened.press("2")
    opened.text("Kept-token map").click()
    opened.segment()
    camera.take("segment")
    opened.press("3", "n", "u")
    opened.page.locator(".maps .v-btn--active").wait_for()
    for view in ("Axial", "Sagittal", "Coronal"):
        _zoom(opened, view)
    camera.take("review")
    if not minutes:
        print("No picture of fine-tuning: no minutes for it, or no labelled data of hippocampus-mr.")
        return
    opened.press("u", "r", "5")
    opened.page.get_by_label("Minutes").fill(str(minutes))
    opened.page.get_by_label("Minutes").blur()
    opened.page.locator(".estimate:not(.refused):visible", has_text="needs").wait_for()
    opened.page.get_by_role("button", name=re.compile("^Fine-tune$")).last.click()
    ended = opened.page.locator(".comparison button, .notice.error").first
    ended.wait_for(timeout=minutes * 60_000 * 10)
    if opened.page.locator(".notice.error").count():
        raise RuntimeError(opened.page.locator(".notice.error").first.inner_text())
    opened.page.locator(".chart").first.scroll_into_view_if_needed()
    opened.page.locator(".panel-scroll").evaluate("panel => panel.scrollTo(0, 1e6)")
    camera.take("fine-tune")


def _zoom(opened: WebPage, view: str) -> None:
    """Towards the middle of a view, where the place to check is."""
    box = opened.page.locator(".view-name", has_text=view).locator("xpath=..").bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.page.keyboard.down("Control")
    for _ in range(_ZOOM_NOTCHES):
        opened.page.mouse.wheel(0, -100)
        opened.page.wait_for_timeout(200)
    opened.page.keyboard.up("Control")


def _a_site(folder: Path) -> Path:
    """A data set of cases that the model was not trained on; not made when there are none."""
    data = Path(os.environ.get("APFORMER_DATA") or ROOT.parent / "shared" / "data") / MODEL
    model = ModelLibrary().find(MODEL)
    if data.is_dir():
        dataset = SiteDataset.create(folder, model.labels)
        for name in model.metadata["metrics"]["patients"][:_CASES]:
            image, truth = (read_volume(data / part / f"{name}.nii.gz") for part in ("imagesTr", "labelsTr"))
            dataset.add(image, truth, patient=name)
    return folder


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "Resources" / "Screenshots")
    parser.add_argument("--size", type=_size, default=(1366, 768), metavar="WIDTHxHEIGHT", help="default: 1366x768")
    parser.add_argument("--minutes", type=float, default=6.0, help="of fine-tuning; default: 6")
    options = parser.parse_args()
    take_all(options.folder, options.size, options.minutes)
