"""What a person does on the page who corrects slices and applies that to the rest."""

from __future__ import annotations

from typing import Any

from web_page import WebPage

MIDDLE = ((0.5, 0.5), (0.502, 0.5))  # of the axial view: one dab of the brush there


def strip_of(a_page: WebPage) -> Any:
    return a_page.page.locator(".view-name", has_text="Axial").locator("xpath=..").locator(".strip")


def mark(a_page: WebPage, title: str) -> Any:
    return strip_of(a_page).get_by_title(title, exact=True)


def button_of(a_page: WebPage) -> Any:
    """That which marks the slice of the axial view."""
    return strip_of(a_page).locator("xpath=..").locator(".mark-button")


def learns(a_page: WebPage, words: str) -> None:
    """Wait until the line above the button says it."""
    a_page.page.locator(".follow", has_text=words).wait_for()


def apply(a_page: WebPage) -> None:
    """Returns when a new proposal is shown."""
    a_page.page.get_by_role("button", name="Apply to the rest").click()
    a_page.page.locator(".followed").wait_for()
