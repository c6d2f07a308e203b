"""A segment's tags: texts under names, which Slicer keeps through undo and in .seg.nrrd files."""

from __future__ import annotations

from typing import Any

import vtk


def tag(segment: Any, name: str) -> str | None:
    """The text under `name`; None when there is none."""
    text = vtk.reference("")
    return str(text) if segment.GetTag(name, text) else None


def set_tag(segment: Any, name: str, text: str) -> None:
    """Slicer separates tags by | in files and does not escape it, so in the text it becomes a slash."""
    segment.SetTag(name, text.replace("|", "/"))
