"""Pictures from files and arrays, at the size of the panel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qt

GAP = 4  # pixels between pictures in a row
MOST_KEPT = 30  # pictures, each some 100 kB
_scaled: dict[tuple[Path, int, int, int], Any] = {}


def scaled(path: Path, width: int) -> Any:
    """The picture with at most `width` pixels per row, as a QPixmap; None when it cannot be read.

    The last ones are kept while their files stay: a panel shows the same model's again and again.
    """
    try:
        told = path.stat()
    except OSError:
        return None
    key = path, width, told.st_mtime_ns, told.st_size
    if key not in _scaled:
        pixmap = qt.QPixmap(str(path))
        if pixmap.isNull():
            return None
        if len(_scaled) >= MOST_KEPT:
            _scaled.clear()
        small = pixmap.width() <= width
        _scaled[key] = pixmap if small else pixmap.scaledToWidth(width, qt.Qt.SmoothTransformation)
    return _scaled[key]


def in_a_row(paths: Sequence[Path], width: int) -> Any:
    """The pictures side by side, together `width` pixels wide; None when none can be read."""
    each = max(1, (width - GAP * (len(paths) - 1)) // max(1, len(paths)))
    found = [pixmap for pixmap in (scaled(path, each) for path in paths) if pixmap is not None]
    if not found:
        return None
    row = qt.QPixmap(
        sum(pixmap.width() for pixmap in found) + GAP * (len(found) - 1), max(pixmap.height() for pixmap in found)
    )
    row.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter()
    painter.begin(row)
    left = 0
    for pixmap in found:
        painter.drawPixmap(left, 0, pixmap)
        left += pixmap.width() + GAP
    painter.end()
    return row


def from_array(array: np.ndarray) -> Any:
    """A QPixmap of uint8 (rows, columns, 3)."""
    rows, columns = array.shape[:2]
    header = f"P6 {columns} {rows} 255\n".encode("ascii")  # a PPM file: QImage from a buffer is not in all bindings
    pixmap = qt.QPixmap()
    pixmap.loadFromData(qt.QByteArray(header + np.ascontiguousarray(array, dtype=np.uint8).tobytes()), "PPM")
    return pixmap
