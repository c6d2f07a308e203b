"""What happens to the scene behind our back: nodes leave it, it is closed, another one is loaded."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import slicer
import vtk

from .signals import Signal

_FIRST = 100.0  # qMRML's models have -10 to 10


class SceneWatch:
    """Tells of a scene until `stop`.

    Attributes:
        added: with the node that just came; its content may still be on its way.
        leaving: with the node that is about to be removed, before anybody else is told.
        removed: with the node that just left. closing: all nodes are about to. closed, loaded: after it.
        saving: the scene is about to be saved.
        is_closing: between `closing` and `closed`, when nothing new may begin.
    """

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self.is_closing = False
        self.added: Signal[Any] = Signal()
        self.leaving: Signal[Any] = Signal()
        self.removed: Signal[Any] = Signal()
        self.closing: Signal[()] = Signal()
        self.closed: Signal[()] = Signal()
        self.loaded: Signal[()] = Signal()
        self.saving: Signal[()] = Signal()
        events = slicer.vtkMRMLScene
        self._observations = [
            Observation(scene, events.NodeAddedEvent, self._node_added, vtk.VTK_OBJECT),
            Observation(scene, events.NodeAboutToBeRemovedEvent, self._node_leaving, vtk.VTK_OBJECT, _FIRST),
            Observation(scene, events.NodeRemovedEvent, self._node_removed, vtk.VTK_OBJECT),
            Observation(scene, events.StartCloseEvent, self._start_close),
            Observation(scene, events.EndCloseEvent, self._end_close),
            Observation(scene, events.EndImportEvent, self._end_import),
            Observation(scene, events.StartSaveEvent, self._start_save),
        ]

    def stop(self) -> None:
        for observation in self._observations:
            observation.stop()

    def _node_added(self, _caller: Any, _event: str, node: Any) -> None:
        self.added.emit(node)

    def _node_leaving(self, _caller: Any, _event: str, node: Any) -> None:
        self.leaving.emit(node)

    def _node_removed(self, _caller: Any, _event: str, node: Any) -> None:
        self.removed.emit(node)

    def _start_close(self, *_: Any) -> None:
        self.is_closing = True
        self.closing.emit()

    def _end_close(self, *_: Any) -> None:
        self.is_closing = False
        self.closed.emit()

    def _end_import(self, *_: Any) -> None:
        self.loaded.emit()

    def _start_save(self, *_: Any) -> None:
        self.saving.emit()


class Observation:
    """Calls a method at each event of a VTK object until `stop`, or until the method's object or this is gone.

    It keeps neither alive, and it is removed before its subject can be taken apart by the garbage collector or at the
    interpreter's end: a scene tells its observers of its own end, and Python code cannot run there (it crashes).

    Args:
        data: the type of what VTK passes along. priority: those with a higher one are called before.
    """

    def __init__(
        self, subject: Any, event: Any, method: Callable[..., None], data: str | None = None, priority: float = 0.0
    ) -> None:
        tag = subject.AddObserver(event, _weakly(method, data), priority)
        found = vtk.vtkWeakReference()
        found.Set(subject)
        self._remove = weakref.finalize(self, _unobserve, found, tag)

    def stop(self) -> None:
        self._remove()


def _unobserve(found: Any, tag: int) -> None:
    subject = found.Get()
    if subject is not None:
        subject.RemoveObserver(tag)


def _weakly(method: Callable[..., None], data: str | None) -> Callable[..., None]:
    """An observer that keeps nothing alive, and does nothing once the method's object is gone."""
    found = weakref.WeakMethod(method)

    def call(*values: Any) -> None:
        present = found()
        if present is not None:
            present(*values)

    if data is not None:
        call.CallDataType = data  # type: ignore[attr-defined]
    return call
