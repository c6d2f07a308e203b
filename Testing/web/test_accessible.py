"""The page for people who use no mouse, or do not see it: everything is reached by keys and has a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from web_page import WebPage

axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python, which comes with axe, is missing")

_SCRIPT = Path(axe.__file__).with_name("axe.min.js")
_FAULTS = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter((fault) => ["serious", "critical"].includes(fault.impact))
    .map((fault) => `${fault.id}: ${fault.nodes.map((node) => node.target.join(" ")).join(", ")}`)"""
_SETTLED_MS = 700  # what fades in has no contrast before


def faults(a_page: WebPage) -> list[str]:
    """What axe finds on the page as it is now, of what is serious."""
    a_page.page.wait_for_timeout(_SETTLED_MS)
    a_page.page.evaluate(_SCRIPT.read_text(encoding="utf-8"))
    found: list[str] = a_page.page.evaluate(_FAULTS)
    return found


def focused(a_page: WebPage) -> str:
    """The words of the button that has the focus; "" where none has."""
    return str(a_page.page.evaluate("document.activeElement.closest('button')?.innerText ?? ''"))


def tab_to(a_page: WebPage, words: str) -> None:
    """Press Tab until what has the focus says it. Raises AssertionError when nothing does."""
    for _ in range(60):
        a_page.press("Tab")
        if words in focused(a_page):
            return
    raise AssertionError(f"{words} cannot be reached by Tab")


@pytest.fixture(scope="module")
def segmented(a_page: WebPage) -> WebPage:
    a_page.load_demo()
    a_page.press("2")
    a_page.text("Kept-token map").click()
    a_page.segment()
    return a_page


def test_a_page_without_an_image_has_no_serious_fault(a_page: WebPage) -> None:
    assert faults(a_page) == []


@pytest.mark.parametrize("keys", ["1", "2", "3", "3n", "3u", "3p", "3t", "3i", "4", "5"])
def test_no_step_or_tool_has_a_serious_fault(segmented: WebPage, keys: str) -> None:
    segmented.press(*keys)
    assert faults(segmented) == []
    segmented.press("Escape")


def test_dialogs_and_menus_have_no_serious_fault(segmented: WebPage) -> None:
    segmented.press("?")
    assert faults(segmented) == []
    segmented.press("Escape")
    segmented.page.get_by_title("Brightness and contrast").click()
    assert faults(segmented) == []
    segmented.press("Escape")
    segmented.page.get_by_title("End the session").click()
    assert faults(segmented) == []
    segmented.text("Go on").click()


def test_a_model_and_a_segment_are_chosen_by_keys_alone(segmented: WebPage) -> None:
    segmented.press("2")
    segmented.page.get_by_text("Show all models").click()
    tab_to(segmented, "left-ventricle-cine-mr")
    segmented.press("Enter")
    segmented.page.locator(".row-item.chosen", has_text="left-ventricle-cine-mr").wait_for()
    tab_to(segmented, "hippocampus-mr")
    segmented.press("Space")
    segmented.page.locator(".row-item.chosen", has_text="hippocampus-mr").wait_for()
    segmented.press("3")
    tab_to(segmented, "Posterior hippocampus")
    segmented.press("Enter")
    segmented.page.locator(".segments tr.chosen", has_text="Posterior hippocampus").wait_for()


def test_letters_stay_keys_after_a_slider_or_a_list_was_touched(segmented: WebPage) -> None:
    segmented.press("1")
    segmented.page.locator(".view-slider [role=slider]").first.click()
    before = slice_of(segmented)
    segmented.press("ArrowRight")  # the slider's own
    segmented.page.wait_for_function(f"trame.state.state.{SLICE} !== {before}")
    segmented.press("2")
    segmented.page.locator(".step.active", has_text="Segment").wait_for()
    segmented.page.locator(".v-select:visible", has_text="Computed on").click()
    chosen = segmented.page.locator(".v-list-item", has_text="CPU")
    chosen.click()
    chosen.wait_for(state="hidden")
    segmented.press("3")
    segmented.page.locator(".step.active", has_text="Review").wait_for()


SLICE = "Red__SliderState__value"


def slice_of(a_page: WebPage) -> Any:
    return a_page.page.evaluate(f"trame.state.state.{SLICE}")
