"""The pages of the panel, one of which is open; what is folded away within them; and the height of the header."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from .collaborators import Ui

MESSAGE_LINES = 3  # of the status and the estimate that the header shows; longer ones scroll within


def is_open(ui: Ui, page: Any) -> bool:
    """Whether the user sees that page, or would if the module were shown."""
    return bool(ui.pages.indexOf(page) == ui.pages.currentIndex)


def when_turned(ui: Ui, action: Callable[..., None]) -> None:
    """Call `action` when another page was opened."""
    ui.pages.connect("currentChanged(int)", action)


def fold(button: Any, contents: Any) -> None:
    """Show `contents` while the arrow button is pressed."""

    def show(shown: bool) -> None:
        button.setArrowType(qt.Qt.DownArrow if shown else qt.Qt.RightArrow)
        contents.setVisible(shown)

    button.connect("toggled(bool)", show)
    show(bool(button.checked))


def keep_height(ui: Ui) -> None:
    """Let nothing below the header move when a message comes."""
    line = qt.QFontMetrics(ui.messageArea.font).lineSpacing()
    ui.messageArea.setFixedHeight(MESSAGE_LINES * (line + 1))
