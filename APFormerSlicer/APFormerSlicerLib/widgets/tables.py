"""Rows of a table widget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

ROW_MARGIN = 10  # pixels: a row holds a combo box or a button, too


def fill(table: Any, keys: Sequence[str], rows: Sequence[Sequence[str]], tips: Sequence[str] = ()) -> None:
    """Show the rows, and keep those selected whose keys were.

    Args:
        keys: one per row, unique; see `selected`.
        tips: one per row, or none.
    """
    before = set(selected(table))
    table.clearSelection()
    table.setRowCount(len(rows))
    for row, (key, texts) in enumerate(zip(keys, rows, strict=True)):
        for column, text in enumerate(texts):
            item = table.item(row, column)
            if item is None:
                item = qt.QTableWidgetItem()
                table.setItem(row, column, item)
            item.setText(text)
            item.setToolTip(tips[row] if tips else "")
        table.item(row, 0).setData(qt.Qt.UserRole, key)
    for row, key in enumerate(keys):
        if key in before:
            _select(table, row)


def selected(table: Any) -> list[str]:
    """The keys of the rows that are selected, from top to bottom."""
    rows = sorted(index.row() for index in table.selectionModel().selectedRows())
    return [str(table.item(row, 0).data(qt.Qt.UserRole)) for row in rows if table.item(row, 0) is not None]


def fit(table: Any, most: int) -> None:
    """Make it as high as its rows, of which `most` are seen at once."""
    heights = [table.rowHeight(row) for row in range(min(table.rowCount, most))]
    header = table.horizontalHeader()
    above = 0 if header.isHidden() else header.sizeHint.height()
    table.setFixedHeight(above + sum(heights) + 2 * table.frameWidth)


def stretch(table: Any, column: int) -> None:
    """Columns are as wide as their contents, `column` takes what is left; rows are as high as a line needs."""
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(qt.QFontMetrics(table.font).lineSpacing() + ROW_MARGIN)
    header = table.horizontalHeader()
    header.setStretchLastSection(False)
    for number in range(table.columnCount):
        header.setSectionResizeMode(
            number, qt.QHeaderView.Stretch if number == column else qt.QHeaderView.ResizeToContents
        )


def _select(table: Any, row: int) -> None:
    for column in range(table.columnCount):
        item = table.item(row, column)
        if item is not None:
            item.setSelected(True)
