"""PythonQt's ways on PySide6: properties as attributes, `connect("signal(type)", f)`, flat enums, closed C++ objects.

The rules are those of PythonQt's PythonQtInstanceWrapper.cpp, PythonQtClassInfo.cpp and PythonQtSignalReceiver.cpp.
"""

from __future__ import annotations

import enum
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

slot_errors: list[BaseException] = []  # raised in slots, where Qt prints and goes on
loading: list[object] = []  # not empty while a .ui file is read: PySide6 then names each child in the root's attributes


def available() -> bool:
    """Whether PySide6 is installed."""
    return find_spec("PySide6") is not None and find_spec("PySide6.QtUiTools") is not None


if available():
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

    PYSIDE: tuple[ModuleType, ...] = (QtCore, QtGui, QtWidgets, QtUiTools)
    _Meta: type = type(QtCore.QObject)
else:  # the tests are skipped
    PYSIDE, _Meta = (), type


class Closed(_Meta):
    """Classes of the stand-in. An object that Qt made is one of them when it is of the class they derive from."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any) -> Any:
        """With `connect` in each class itself: PySide6 finds its own before that of a base."""
        if any(issubclass(base, Ways) for base in bases):
            namespace = {**{name: vars(Ways)[name] for name in ("connect", "disconnect")}, **namespace}
        return super().__new__(mcs, name, bases, namespace, **keywords)

    def __instancecheck__(cls, candidate: object) -> bool:
        base = cls.__dict__.get("cpp_class")
        return isinstance(candidate, base) if base is not None else type.__instancecheck__(cls, candidate)


class EnumWrapper:
    """What PythonQt has under the name of an enum: it makes values of integers; the values' names are in the class."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        self.__dict__["_kind"] = kind

    def __call__(self, value: int) -> Any:
        return self._kind(value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"PythonQt has no '{self._kind.__name__}.{name}': the values of Qt's enums are in the class"
        )


class Ways:
    """What all objects of Qt have in PythonQt."""

    cpp_class: type | None = None
    # Of a played class: the signals that C++ has -> the name of the Python signal.
    SIGNATURES: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)

    # ---------------------------------------------------------------- attributes

    def __getattr__(self, name: str) -> Any:
        """Dynamic properties, then children by their objectName, as PythonQtInstanceWrapper_getattro does."""
        if not name or name.startswith("_"):
            raise AttributeError(name)
        if name in QtCore.QObject.dynamicPropertyNames(self):
            return QtCore.QObject.property(self, name)
        for child in QtCore.QObject.children(self):
            if child.objectName == name:
                return child
        raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if loading and isinstance(value, QtCore.QObject):
            return None
        owner = next((base for base in cls.__mro__ if name in base.__dict__), None)
        if owner is not None and isinstance(owner.__dict__[name], (property, QtCore.Property)):
            return super().__setattr__(name, value)
        if name in QtCore.QObject.dynamicPropertyNames(self):
            QtCore.QObject.setProperty(self, name, value)
            return None
        if owner is not None and _is_cpp(owner):
            raise AttributeError(f"Slot '{name}' can not be overwritten on {cls.__name__} object")
        if _is_cpp(cls):
            raise AttributeError(
                f"'{name}' does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
            )
        return super().__setattr__(name, value)

    @property
    def name(self) -> str:
        return self.objectName

    @name.setter
    def name(self, name: str) -> None:
        QtCore.QObject.setObjectName(self, name)

    def className(self) -> str:
        cls = type(self)
        return next((base.__name__ for base in cls.__mro__ if _is_cpp(base)), cls.__name__)

    def delete(self) -> None:
        """PythonQt deletes the C++ object here and now."""
        import shiboken6

        shiboken6.delete(self)

    def findChildren(self, kind: Any, name: str = "") -> list[Any]:
        return [child for child in _descendants(self) if _is_a(child, kind) and name in ("", child.objectName)]

    def findChild(self, kind: Any, name: str = "") -> Any:
        return next(iter(self.findChildren(kind, name)), None)

    # ---------------------------------------------------------------- signals

    def connect(self, signal: str, *target: Any) -> bool:
        """connect("clicked(bool)", f), or connect("clicked()", receiver, "slot()")."""
        if len(target) == 2:
            receiver, slot = target
            function = getattr(receiver, slot.partition("(")[0])
        else:
            (function,) = target
        if not callable(function):
            raise TypeError(f"{function!r} is connected to '{signal}' and cannot be called")
        heard = _heard_by(function)
        played = self._played(signal)
        if played is not None:
            played.connect(heard)
        else:
            QtCore.QObject.connect(self, f"2{self._existing(signal)}", heard)
        self.__dict__.setdefault("_connections", []).append((_normal(signal), function, heard))
        return True

    def disconnect(self, signal: str, *target: Any) -> bool:
        """disconnect("clicked(bool)", f): whether it was connected."""
        (function,) = target
        for entry in self.__dict__.get("_connections", []):
            if entry[0] == _normal(signal) and entry[1] == function:
                played = self._played(signal)
                if played is not None:
                    played.disconnect(entry[2])
                else:
                    QtCore.QObject.disconnect(self, f"2{self._existing(signal)}", entry[2])
                self.__dict__["_connections"].remove(entry)
                return True
        return False

    def _played(self, signal: str) -> Any:
        wanted = _normal(signal)
        for base in type(self).__mro__:
            for signature, attribute in base.__dict__.get("SIGNATURES", {}).items():
                if _normal(signature) == wanted:
                    return getattr(self, attribute)
        return None

    def _existing(self, signal: str) -> str:
        normal = _normal(signal)
        meta = QtCore.QObject.metaObject(self)
        if meta.indexOfSignal(normal) < 0:
            raise AttributeError(f"{type(self).__name__} has no signal '{signal}'")
        return normal


def own(widget: Any, **values: Any) -> None:
    """Set attributes of a played C++ object that Python code outside does not see as its own."""
    widget.__dict__.update(values)


def played(cls: type) -> type:
    """Mark a class of the stand-in as one that is C++ in Slicer: closed to new attributes from outside."""
    cls.is_cpp = True  # type: ignore[attr-defined]
    return cls


def plain(kind: Any, name: str, default: Any, changed: Callable[[Any], None] | None = None) -> Any:
    """A Qt property that only keeps what it is given; `changed` is called with the object afterwards."""

    def get(self: Any) -> Any:
        return self.__dict__.get(f"_{name}", default)

    def put(self: Any, value: Any) -> None:
        self.__dict__[f"_{name}"] = value
        if changed is not None:
            changed(self)

    return QtCore.Property(kind, get, put)


@cache
def derive(cpp_class: type) -> type:
    """The class that stands in for a class of Qt."""
    namespace: dict[str, Any] = {"cpp_class": cpp_class, "is_cpp": True}
    for base in reversed(cpp_class.__mro__):
        for name, kind in list(base.__dict__.items()):
            if isinstance(kind, type) and issubclass(kind, enum.Enum):
                flat = {
                    member: value for member, value in kind.__members__.items() if not hasattr(QtCore.QObject, member)
                }
                namespace |= {**flat, name: EnumWrapper(kind)}
    is_object = issubclass(cpp_class, QtCore.QObject)
    try:
        return Closed(cpp_class.__name__, (Ways, cpp_class) if is_object else (cpp_class,), namespace)
    except TypeError:  # a class that cannot be derived from
        return cpp_class


def inject_properties() -> None:
    """Make every property of every class of Qt an attribute, for the objects too that Qt makes by itself."""
    for module in PYSIDE:
        for name in dir(module):  # PySide6 makes classes when they are asked for: vars() does not have them all
            cls = getattr(module, name)
            if isinstance(cls, type) and issubclass(cls, QtCore.QObject) and not hasattr(cls, "cpp_class"):
                _inject(cls)


@cache
def _inject(cls: type) -> None:
    meta = cls.staticMetaObject  # type: ignore[attr-defined]
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        getter = cls.__dict__.get(name)
        if not isinstance(getter, property) and (index >= meta.propertyOffset() or getter is not None):
            setattr(cls, name, _attribute(name, getter, meta.property(index).isWritable()))


class _Attribute(property):
    """A property of an object that leaves a static method of the same name to the class: QTimer.singleShot."""

    static: Any = None

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None and self.static is not None:
            return self.static
        return super().__get__(instance, owner)


def _attribute(name: str, getter: Any, writable: bool) -> property:
    """A property of Qt as one of Python. Through the method of that name where there is one: QObject.property would
    call an overriding method of Python, and that again, without end."""

    static = isinstance(getter, staticmethod)

    def get(self: Any) -> Any:
        if getter is None or static:
            return QtCore.QObject.property(self, name)
        return getter.__get__(self)()

    def put(self: Any, value: Any) -> None:
        if not QtCore.QObject.setProperty(self, name, value):
            raise AttributeError(
                f"Property '{name}' of {type(self).__name__} does not accept an object of type {type(value).__name__}"
                f" ({value!r})"
            )

    attribute = _Attribute(get, put if writable else None)
    if static:
        attribute.static = getter.__func__
    return attribute


def _is_cpp(cls: type) -> bool:
    """Whether a class is one of C++ in Slicer: of PySide6, derived from one, or played."""
    return cls.__dict__.get("is_cpp", False) or cls.__module__.startswith(("PySide6", "Shiboken"))


def _is_a(candidate: Any, kind: Any) -> bool:
    if isinstance(kind, str):
        return any(base.__name__ == kind for base in type(candidate).__mro__)
    return isinstance(candidate, kind)


def _descendants(widget: Any) -> Iterator[Any]:
    for child in QtCore.QObject.children(widget):
        yield child
        yield from _descendants(child)


def _normal(signal: str) -> str:
    return bytes(QtCore.QMetaObject.normalizedSignature(signal)).decode()


def _heard_by(function: Callable[..., Any]) -> Callable[..., None]:
    """Calls `function` with as many of the signal's values as it takes, as PythonQtSignalTarget::call counts them."""
    count = _argument_count(function)

    def heard(*values: Any) -> None:
        try:
            function(*values[:count])
        except Exception as error:  # noqa: BLE001  Qt prints it and goes on; the test is told in the end
            traceback.print_exc()
            slot_errors.append(error)

    return heard


def _argument_count(function: Callable[..., Any]) -> int | None:
    """None: all. Only functions and methods of Python are asked for their number of arguments."""
    bound = inspect.ismethod(function)
    code = getattr(function.__func__ if bound else function, "__code__", None)  # type: ignore[union-attr]
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - int(bound)


def catch_slot_errors() -> Callable[[], None]:
    """Keep also what is raised in slots connected PySide6's way (`signal.connect(f)`); returns what undoes it."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        slot_errors.append(error)
        before(kind, error, trace)

    sys.excepthook = hook
    return lambda: setattr(sys, "excepthook", before)
