"""Slicer's error log: what VTK's classes and Qt's widgets complain of, which a user sees as red numbers in a corner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vtk

errors: list[str] = []


def critical(text: str) -> None:
    """What a widget of Slicer tells by qCritical, and then goes on."""
    errors.append(text)


@contextmanager
def listening() -> Iterator[list[str]]:
    """The errors from now on, those of VTK among them."""
    errors.clear()

    def heard(_window: Any, _event: str, text: str) -> None:
        errors.append(text.strip())

    heard.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]
    window = vtk.vtkOutputWindow.GetInstance()
    tag = window.AddObserver("ErrorEvent", heard)
    try:
        yield errors
    finally:
        window.RemoveObserver(tag)
