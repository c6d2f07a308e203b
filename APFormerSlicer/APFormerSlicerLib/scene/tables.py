"""A table node that is filled anew each time, not added once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import vtk

_KIND = "APFormer.Table"  # attribute by which it is found again, whatever it was renamed to


def write_table(
    scene: Any, kind: str, columns: Mapping[str, Sequence[str | float]], units: Mapping[str, str] | None = None
) -> Any:
    """The scene's vtkMRMLTableNode of this kind with these columns and no others; made where there is none.

    Args:
        kind: what it holds, such as "volumes"; also the end of a new node's name.
        columns: by title: texts, or numbers.
        units: by title.
    """
    node = _found(scene, kind)
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(f"APFormer {kind}"))
        node.SetAttribute(_KIND, kind)
    was_modifying = node.StartModify()
    try:
        node.RemoveAllColumns()
        for title, values in columns.items():
            node.AddColumn(_column(title, values))
        for title, unit in (units or {}).items():
            node.SetColumnUnitLabel(title, unit)
    finally:
        node.EndModify(was_modifying)
    return node


def _found(scene: Any, kind: str) -> Any:
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLTableNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLTableNode")
        if node.GetAttribute(_KIND) == kind:
            return node
    return None


def _column(title: str, values: Sequence[str | float]) -> Any:
    numbers = all(isinstance(value, int | float) for value in values)
    column = vtk.vtkDoubleArray() if values and numbers else vtk.vtkStringArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value if numbers else str(value))
    return column
