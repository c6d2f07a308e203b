"""Which frame of a sequence is shown, and showing another one for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..scene import Frames


def shown_frame(frames: Frames) -> int:
    """The number of the frame that the proxy stands for now."""
    browser = frames.browser
    value = browser.GetMasterSequenceNode().GetNthIndexValue(browser.GetSelectedItemNumber())
    return int(frames.sequence.GetItemNumberFromIndexValue(value, False))


@contextmanager
def showing(frames: Frames, number: int) -> Iterator[None]:
    """Let the browser show frame `number`, so that proxies stand for it, and then what it showed before."""
    browser = frames.browser
    before = browser.GetSelectedItemNumber()
    value = frames.sequence.GetNthIndexValue(number)
    wanted = browser.GetMasterSequenceNode().GetItemNumberFromIndexValue(value, False)
    if wanted != before:
        browser.SetSelectedItemNumber(wanted)
    try:
        yield
    finally:
        if wanted != before:
            browser.SetSelectedItemNumber(before)
