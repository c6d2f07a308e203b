"""The module `qt` of Slicer: what PythonQt wraps of QtCore, QtGui, QtWidgets and QtUiTools, one flat namespace."""

from __future__ import annotations

import enum
from types import ModuleType
from typing import Any

from .pythonqt import PYSIDE, EnumWrapper, derive

# Python's own additions of PySide6, and what Qt 5 or PythonQt does not have under this name.
_LACKING = {"QEnum", "QFlag", "QT_TR_NOOP", "QT_TR_NOOP_UTF8", "QT_TRANSLATE_NOOP", "QtMsgType"}


class QtModule(ModuleType):
    """Classes are derived when they are asked for; names that are none of Qt's classes are refused."""

    def __init__(self, replacements: dict[str, type]) -> None:
        super().__init__("qt", __doc__)
        self.__dict__.update(replacements)
        self.__dict__["Qt"] = _namespace()

    def __getattr__(self, name: str) -> Any:
        found = next((getattr(module, name) for module in PYSIDE if hasattr(module, name)), None)
        if found is None or not name.startswith("Q") or name in _LACKING or not isinstance(found, type):
            raise AttributeError(f"module 'qt' has no attribute '{name}'")
        self.__dict__[name] = derive(found)
        return self.__dict__[name]


def _namespace() -> type:
    """`qt.Qt`: the values of all its enums, and the enums' names only to make values of integers."""
    from PySide6.QtCore import Qt

    values: dict[str, Any] = {}
    for name, kind in vars(Qt).items():
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            values |= {**kind.__members__, name: EnumWrapper(kind)}
    return type("Qt", (), values)
