"""The page in a real Chromium, on the demonstration's volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SLOW = 90_000  # ms


def opened(user: Any, address: str) -> Any:
    page = user.new_page()
    page.goto(address)
    page.get_by_text("Drop NIfTI").wait_for(timeout=SLOW)
    return page


def test_a_user_segments_the_demo_volume_and_reloads_while_another_sees_nothing_of_it(
    a_server: str, a_user: Any, a_browser: Any, tmp_path: Path
) -> None:
    asked: list[str] = []
    a_user.on("request", lambda request: asked.append(request.url))
    page = opened(a_user, a_server)
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"no image")
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose files").click()
    chooser.value.set_files(damaged)
    page.locator(".notice.error .notice-remedy").wait_for(timeout=SLOW)
    assert "damaged.nii.gz" in page.locator(".notice.error .notice-what").inner_text()
    assert "/" not in page.locator(".notice.error .notice-what").inner_text().split("damaged.nii.gz")[0]

    page.get_by_text("Load the demo volume").click()
    page.get_by_text("Next: segment").click(timeout=SLOW)
    page.keyboard.press("s")
    page.locator(".job").wait_for(timeout=SLOW)
    page.reload()
    page.locator(".result .table tr").first.wait_for(timeout=SLOW)
    rows = page.locator(".result .table tr").all_inner_texts()
    assert [row.split("\t")[0].strip() for row in rows] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert all(0.5 < float(row.split()[-2]) < 5.0 for row in rows)
    with page.expect_download() as download:
        page.get_by_text(".seg.nrrd", exact=True).click()
    assert Path(download.value.path()).read_bytes().startswith(b"NRRD")

    other = a_browser.new_context()
    assert opened(other, a_server).get_by_text("Demo: T1 template").count() == 0
    other.close()
    assert {urlsplit(url).netloc for url in asked if url.startswith("http")} == {urlsplit(a_server).netloc}
