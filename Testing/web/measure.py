"""Measure the page in a real browser and print JSON: `.venv/bin/python Testing/web/measure.py [--seconds 5]`.

Seconds from starting the server to the first paint and to a page that can be used, seconds of Segment on the
demonstration's volume, and frames per second of the axial view while it is scrolled, counted where they reach the
browser: on its websocket; those of the other views apart, which do not change. What a frame costs in CPU time, of the
server and of the browser, holds on a busy machine too. The memory is that of the session's process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from typing import Any

import psutil
from playwright.sync_api import sync_playwright
from web_page import WebPage
from web_server import OFFLINE, Served, chromium, missing, serving

SIZE = {"width": 1366, "height": 768}
_HEAD = 500  # bytes of a message, in which it says what it is
_NOTCH = 100.0  # of a mouse wheel, in the browser's pixels
_VIEWS = ("Red", "Green", "Yellow")  # axial, coronal, sagittal
_SCROLLED = "Red"
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_NAVIGATED = "performance.timeOrigin"


class Frames:
    """Pictures of views that reach the browser. counts: of each view. bytes: of all of them together."""

    def __init__(self, page: Any) -> None:
        self.counts, self.bytes = dict.fromkeys(_VIEWS, 0), 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._receive))

    def _receive(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes) and b"image/jpeg" in payload[:_HEAD]:
            for name in self.counts:
                self.counts[name] += name.encode() in payload[:_HEAD]
            self.bytes += len(payload)


def measure(seconds: float) -> dict[str, Any]:
    """All figures. Raises RuntimeError when something that is needed is not installed."""
    program = chromium()
    if missing() or program is None:
        raise RuntimeError(f"{missing() or 'chromium'} is not installed")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=list(OFFLINE))
        user = browser.new_context(viewport=SIZE)
        began = time.time()
        with serving() as server:
            listening = time.time() - began
            first = user.new_page()
            first.goto(server.link)
            painted = first.wait_for_function(f"{_FIRST_PAINT} + {_NAVIGATED}").json_value() / 1000.0 - began
            first.close()
            opened = WebPage(user, server.link)
            usable = time.time() - began
            figures = {"listening_s": listening, "first_paint_s": painted, "usable_s": usable}
            figures |= {**_segmenting(opened), **_scrolling(opened, user, server, seconds)}
        version = browser.version
        browser.close()
    rounded = {name: round(value, 2) for name, value in figures.items()}
    return {**rounded, "conditions": _conditions(version)}


def _segmenting(opened: WebPage) -> dict[str, float]:
    began = time.time()
    opened.load_demo()
    loaded = time.time()
    opened.press("2")
    opened.page.locator(".estimate").wait_for()
    awake = time.time()
    opened.segment()
    return {"load_demo_s": loaded - began, "estimate_s": awake - loaded, "segment_s": time.time() - awake}


def _scrolling(opened: WebPage, user: Any, server: Served, seconds: float) -> dict[str, float]:
    """Scroll the axial view in the layout of four views, with the segmentation in it, forth and back."""
    opened.page.close()
    page = user.new_page()
    frames = Frames(page)
    page.goto(server.link)
    view = page.locator(".view-name", has_text="Axial")
    view.wait_for(timeout=90_000)
    page.wait_for_timeout(3000)  # the pictures of all views
    box = view.locator("xpath=..").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, _NOTCH)
    page.wait_for_timeout(1000)
    before, bytes_before, sent, began = dict(frames.counts), frames.bytes, 0, time.time()
    spent = [_cpu_seconds(pid) for pid in (server.process.pid, _browser().pid)]
    while time.time() - began < seconds:
        page.mouse.wheel(0, _NOTCH if sent // 30 % 2 else -_NOTCH)
        sent += 1
        page.wait_for_timeout(15)
    took = time.time() - began
    count = frames.counts[_SCROLLED] - before[_SCROLLED]
    others = sum(frames.counts.values()) - sum(before.values()) - count
    now = [_cpu_seconds(pid) for pid in (server.process.pid, _browser().pid)]
    of_server, of_browser = (1000.0 * (after - start) / max(count, 1) for start, after in zip(spent, now, strict=True))
    return {
        "server_cpu_ms_per_frame": of_server,
        "browser_cpu_ms_per_frame": of_browser,
        "scroll_frames_per_s": count / took,
        "frames_of_other_views": others,
        "scroll_notches_per_s": sent / took,
        "kb_per_frame": (frames.bytes - bytes_before) / max(count, 1) / 1000.0,
        "session_mb": max(one.memory_info().rss for one in server.processes("APFormerSlicerLib.web.session")) / 1e6,
    }


def _browser() -> psutil.Process:
    """The process that started all others of Chromium."""
    below = psutil.Process().children(recursive=True)
    return next(one for one in below if "chrom" in one.name() and "chrom" not in (one.parent() or one).name())


def _cpu_seconds(pid: int) -> float:
    """Of a process and all below it."""
    root = psutil.Process(pid)
    times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _conditions(browser: str) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cores": cores,
        "load_of_the_last_minute": None if load is None else round(load, 1),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "browser": f"Chromium {browser}",
        "window": f"{SIZE['width']}x{SIZE['height']}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of scrolling; default: 5")
    print(json.dumps(measure(parser.parse_args().seconds), indent=2))
