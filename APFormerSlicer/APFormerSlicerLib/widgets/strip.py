"""A strip with one cell for each slice of a volume, coloured by what is known of it; a click goes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from .hints import quietly

HEIGHT, MARK = 14, 4  # pixels, of the slices and of the mark below the one that is seen
MOST = 80  # cells; of more slices, some share one
COLORS = {"right": "#2c7fb8", "drawn": "#f4a100", "proposed": "#9aa0a6"}  # told apart by colour-blind eyes, too
SEEN = "#d81b60"  # the mark, on light and dark alike
_ORDER = ("right", "drawn", "proposed", "")  # what a cell of several slices shows


class Strip:
    """Works on a table, of which the second row marks the slice that is seen: a selection would hide its colour.

    Args:
        chosen: called with the number of the slice that the user went to.
    """

    def __init__(self, table: Any, chosen: Callable[[int], None]) -> None:
        self._table, self._chosen = table, chosen
        self._kinds: list[str] = []
        self._marked = -1  # column
        table.setRowCount(2)
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setVisible(False)
        table.horizontalHeader().setMinimumSectionSize(1)
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        table.verticalHeader().setMinimumSectionSize(1)
        table.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setRowHeight(0, HEIGHT)
        table.setRowHeight(1, MARK)
        table.setFixedHeight(HEIGHT + MARK + 2 * table.frameWidth)
        table.connect("currentCellChanged(int,int,int,int)", self._went)

    def show(self, kinds: Sequence[str], current: int | None) -> None:
        """What is known of each slice, "right", "drawn", "proposed" or "", and which one is seen."""
        if list(kinds) != self._kinds:
            self._kinds = list(kinds)
            with quietly(self._table):
                self._fill()
        self.show_current(current)

    def show_current(self, current: int | None) -> None:
        """Which slice is seen."""
        column = -1 if current is None or not self._kinds else current * self._cells // len(self._kinds)
        if column != self._table.currentColumn():
            with quietly(self._table):
                self._table.setCurrentCell(0 if column >= 0 else -1, column)
        self._mark(column)

    @property
    def _cells(self) -> int:
        return min(len(self._kinds), MOST)

    def _slices(self, column: int) -> range:
        """Those that share a cell."""
        count, cells = len(self._kinds), self._cells
        return range(-(-column * count // cells), -(-(column + 1) * count // cells))

    def _best(self, column: int) -> int:
        """The slice of a cell of which most is known."""
        return min(self._slices(column), key=lambda number: _ORDER.index(self._kinds[number]))

    def _fill(self) -> None:
        table = self._table
        self._mark(-1)
        table.setColumnCount(self._cells)
        for column in range(self._cells):
            item = _item(table, 0, column)
            kind = self._kinds[self._best(column)]
            item.setBackground(qt.QBrush(qt.QColor(COLORS[kind])) if kind else qt.QBrush())
            item.setToolTip(self._tip(column, kind))

    def _mark(self, column: int) -> None:
        for changed in {self._marked, column} - {-1}:
            ink = qt.QBrush(qt.QColor(SEEN)) if changed == column else qt.QBrush()
            _item(self._table, 1, changed).setBackground(ink)
        self._marked = column

    def _tip(self, column: int, kind: str) -> str:
        told = {"right": _("marked as right"), "drawn": _("drawn on"), "proposed": _("proposed"), "": _("empty")}
        slices = self._slices(column)
        if len(slices) == 1:
            return str(_("Slice {number}: {kind}").format(number=slices[0] + 1, kind=told[kind]))
        return str(
            _("Slices {first} to {last}: {kind}").format(first=slices[0] + 1, last=slices[-1] + 1, kind=told[kind])
        )

    def _went(self, _row: int, column: int, *_before: int) -> None:
        if 0 <= column < self._cells:
            self._chosen(self._best(column))


def _item(table: Any, row: int, column: int) -> Any:
    """That of the cell, which is made where there is none."""
    item = table.item(row, column)
    if item is None:
        item = qt.QTableWidgetItem()
        item.setFlags(qt.Qt.ItemIsEnabled if row == 0 else qt.Qt.NoItemFlags)
        table.setItem(row, column, item)
    return item
