"""What a user does on the page, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SLOW = 90_000  # ms; a busy machine is no error
_DRAWN_MS = 150


class WebPage:
    """One browser tab.

    Attributes:
        page: Playwright's. complaints: errors on the browser's console.
    """

    def __init__(self, user: Any, link: str) -> None:
        self.page = user.new_page()
        self.page.set_default_timeout(SLOW)
        self.complaints: list[str] = []
        self.page.on("console", lambda told: told.type == "error" and self.complaints.append(told.text))
        self.page.goto(link)
        self.wait_until_usable()

    def wait_until_usable(self) -> None:
        self.page.get_by_text("Drop NIfTI").wait_for(state="attached")

    def text(self, words: str) -> Any:
        return self.page.get_by_text(words)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    # ---------------------------------------------------------------- images

    def upload(self, *paths: Path) -> None:
        """Choose files; a folder is chosen as one."""
        self.press("1")
        with self.page.expect_file_chooser() as chooser:
            self.text("DICOM folder" if paths[0].is_dir() else "Choose files").click()
        chooser.value.set_files(paths[0] if paths[0].is_dir() else list(paths))

    def wait_for_image(self, name: str) -> None:
        self.page.locator(".bar-image", has_text=name).wait_for()

    def load_demo(self) -> None:
        self.text("Load the demo volume").click()
        self.wait_for_image("Demo: T1 template")

    # ---------------------------------------------------------------- results

    def choose_model(self, name: str) -> None:
        self.press("2")
        self.page.locator(".row-item", has_text=name).click()
        self.page.locator(".row-item.chosen", has_text=name).wait_for()

    def start(self) -> None:
        """Segment what is chosen; returns when the job is shown."""
        self.press("2", "s")
        self.page.locator(".job").wait_for()

    def wait_for_result(self) -> dict[str, float]:
        """Segment name -> mL."""
        self.page.locator(".result").wait_for()
        return self.volumes(".result")

    def segment(self) -> dict[str, float]:
        self.start()
        return self.wait_for_result()

    def volumes(self, where: str = ".segments") -> dict[str, float]:
        """Segment name -> mL, as a table on the page has them."""
        rows = self.page.locator(f"{where} tr")
        read = [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in rows.all()]
        return {cells[0]: float(cells[1].removesuffix(" mL")) for cells in read}

    def wait_for_volume(self, name: str, wanted: Any) -> float:
        """The volume of a segment, once `wanted` is true of it. Raises AssertionError when it never is."""
        for _ in range(SLOW // 200):
            volume = self.volumes()[name]
            if wanted(volume):
                return volume
            self.page.wait_for_timeout(200)
        raise AssertionError(f"{name} stays at {self.volumes()[name]} mL")

    def download(self, kind: str, folder: Path) -> Path:
        """The file behind a button, under its own name."""
        with self.page.expect_download() as download:
            self.page.get_by_text(kind, exact=True).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    # ---------------------------------------------------------------- what is told

    def notice(self, words: str) -> Any:
        """The box that says it, once it does."""
        found = self.page.locator(".notice", has_text=words)
        found.first.wait_for()
        return found.first

    def error(self, words: str) -> tuple[str, str, str]:
        """What happened, what it means and what to do, of the error that says `words`."""
        box = self.notice(words)
        parts = [line.strip() for line in box.inner_text().splitlines() if line.strip()]
        assert "error" in box.get_attribute("class")
        what, meaning, remedy = parts
        return what, meaning, remedy

    def end_session(self) -> None:
        self.page.get_by_title("End the session").click()
        self.page.locator(".help").get_by_text("End the session", exact=True).click()
        self.text("Your session is over").wait_for()

    # ---------------------------------------------------------------- drawing

    def drag(self, view: str, *places: tuple[float, float]) -> None:
        """Press, move and release the mouse in a view; places are shares of its width and height."""
        box = self.page.locator(".view-name", has_text=view).locator("xpath=..").bounding_box()
        spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
        mouse = self.page.mouse
        mouse.move(*spots[0])
        mouse.down()
        for spot in spots[1:]:
            mouse.move(*spot)
            self.page.wait_for_timeout(_DRAWN_MS)  # places that come faster than they are drawn are left out
        mouse.up()
