"""What a disabled button says, what a label says, and changing a widget without being told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..workflow.wording import Checked

LONGEST_WORD = 30  # characters, of a line of 300 pixels; paths, and names of series
PLACE_TO_BREAK = "\u200b"  # a space without width


class Hints:
    """The tool tips of the .ui file, and in their place the reason why a widget cannot be used."""

    def __init__(self) -> None:
        self._tips: dict[Any, str] = {}

    def allow(self, widget: Any, checked: Checked) -> None:
        """Enable it, or disable it and say why; the tool tip of a disabled widget is shown too."""
        ok, reason = checked
        tip = self._tips.setdefault(widget, widget.toolTip)
        widget.setEnabled(ok)
        widget.setToolTip(tip if ok else reason)


@contextmanager
def quietly(*widgets: Any) -> Iterator[None]:
    """The widgets tell nobody of what changes meanwhile: it comes from the state, not from the user."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, blocked in zip(widgets, before, strict=True):
            widget.blockSignals(blocked)


def show_text(label: Any, text: str) -> None:
    """The text, or no empty line where there is none. A label wraps it; words too long for a line may be broken."""
    label.setText(breakable(text))
    label.setVisible(bool(text))


def breakable(text: str) -> str:
    """The text with places, that are not seen, where words of more than `LONGEST_WORD` characters may be broken."""
    return re.sub(rf"\S{{{LONGEST_WORD}}}(?=\S)", lambda found: found[0] + PLACE_TO_BREAK, text)
