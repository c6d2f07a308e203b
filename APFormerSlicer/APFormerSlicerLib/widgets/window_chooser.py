"""On the page Segment, how bright the chosen CT is shown."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from ..workflow import Workflow
from ..workflow.scene_watch import Observation
from ..workflow.windows import Window
from .collaborators import Asks, Ui
from .hints import quietly


class WindowChooser:
    """Is seen only where the chosen volume is a CT; shows what window it has, whoever set it."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks) -> None:
        self._ui, self._workflow, self._asks = ui, workflow, asks
        self._offered: list[Window] = []
        self._observed: Any = None
        self._observation: Observation | None = None
        ui.windowComboBox.connect("activated(int)", self._choose)
        workflow.state.changed.connect(self.refresh)
        self.refresh()

    def refresh(self, *_unused: Any) -> None:
        """Show what can be chosen for the chosen volume, and what it has."""
        if self._workflow.watch.is_closing:
            return
        self._observe(self._workflow.state.volume)
        combo, windows = self._ui.windowComboBox, self._workflow.windows
        offered = windows.offered()
        for widget in (combo, self._ui.windowComboBoxTitle):
            widget.setVisible(bool(offered))
        with quietly(combo):
            if offered != self._offered or combo.count == 0:
                self._offered = offered
                combo.clear()
                combo.addItem(_("as it is"))
                for window in offered:
                    combo.addItem(f"{window.name} ({window.width:g} / {window.center:g} HU)")
            shown = windows.shown()
            combo.setCurrentIndex(0 if shown is None else 1 + offered.index(shown))

    def _choose(self, row: int) -> None:
        if 1 <= row <= len(self._offered):
            self._asks.attempt(lambda: self._workflow.windows.show(self._offered[row - 1]))
        self.refresh()

    def _observe(self, node: Any) -> None:
        if node is self._observed:
            return
        if self._observation is not None:
            self._observation.stop()
        self._observed = node
        self._observation = None if node is None else Observation(node, node.DisplayModifiedEvent, self.refresh)

    def close(self) -> None:
        self._observe(None)
