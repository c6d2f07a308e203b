"""What the user has chosen, in a node of the scene: saved and restored with it, seen alike by all hosts and scripts."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import slicer

from .scene_watch import Observation, SceneWatch
from .signals import Signal

TAG = "APFormer"  # the singleton tag: one such node per scene, and loading a scene updates it
T = TypeVar("T")


class Parameter(Generic[T]):
    """A value of a `State`, as JSON in a parameter of the node; the default where there is none, or nonsense."""

    def __init__(self, name: str, default: T) -> None:
        self.name, self.default = name, default

    @overload
    def __get__(self, state: None, owner: type) -> Parameter[T]: ...
    @overload
    def __get__(self, state: State, owner: type) -> T: ...
    def __get__(self, state: State | None, owner: type) -> Parameter[T] | T:
        if state is None:
            return self
        try:
            value = json.loads(state.node.GetParameter(self.name) or "null")
        except ValueError:  # edited by hand, or of another program
            value = None
        return value if isinstance(value, type(self.default)) else copy(self.default)

    def __set__(self, state: State, value: T) -> None:
        text = json.dumps(value)
        if state.node.GetParameter(self.name) != text:
            state.node.SetParameter(self.name, text)


class Reference:
    """A node that a `State` refers to; None when it is not, or no longer, in the scene."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __get__(self, state: State, owner: type) -> Any:
        return state.node.GetNodeReference(self.role)

    def __set__(self, state: State, node: Any) -> None:
        wanted = None if node is None else node.GetID()
        if state.node.GetNodeReferenceID(self.role) != wanted:
            state.node.SetNodeReferenceID(self.role, wanted)


class State:
    """The choices of one scene.

    Attributes:
        volume, segmentation, roi: nodes, or None.
        model: a reference, "" for none. device: "auto", "cpu", ... maps: those wanted beside the labels.
        site: folder of the site's data set, "" for none. who: the name that goes with corrections, "" for none.
        tuning: see `tuning.Choices`.
        changed: after every change, whoever made it.
    """

    volume = Reference("volume")
    segmentation = Reference("segmentation")
    roi = Reference("roi")
    model: Parameter[str] = Parameter("model", "")
    device: Parameter[str] = Parameter("device", "auto")
    maps: Parameter[list[str]] = Parameter("maps", ["uncertainty"])
    site: Parameter[str] = Parameter("site", "")
    who: Parameter[str] = Parameter("who", "")
    tuning: Parameter[dict[str, Any]] = Parameter("tuning", {})

    # What a user chooses for a day of work, not for one patient: closing the scene keeps it.
    _KEPT = ("model", "device", "maps", "site", "who", "tuning")

    def __init__(self, watch: SceneWatch) -> None:
        self.changed: Signal[()] = Signal()
        self._watch = watch
        self._observed: Any = None
        self._observation: Observation | None = None
        self._kept: dict[str, Any] = {}
        watch.closing.connect(self._remember)
        watch.closed.connect(self._recall)
        watch.loaded.connect(self._look_again)
        self._look_again()

    @property
    def node(self) -> Any:
        """The vtkMRMLScriptedModuleNode; made anew when somebody removed it."""
        scene = self._watch.scene
        node = scene.GetSingletonNode(TAG, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(TAG)
            node.SetName(TAG)
            node.SetModuleName("APFormerSlicer")
            node = scene.AddNode(node)
        if node is not self._observed:
            self._observe(node)
        return node

    @property
    def site_folder(self) -> Path | None:
        return Path(self.site) if self.site else None

    def stop(self) -> None:
        """Listen no more; the node stays."""
        self._observe(None)
        self._watch.closing.disconnect(self._remember)
        self._watch.closed.disconnect(self._recall)
        self._watch.loaded.disconnect(self._look_again)

    def _observe(self, node: Any) -> None:
        if self._observation is not None:
            self._observation.stop()
        self._observed = node
        self._observation = None if node is None else Observation(node, "ModifiedEvent", self._node_changed)

    def _node_changed(self, *_: Any) -> None:
        self.changed.emit()

    def _remember(self) -> None:
        self._kept = {name: getattr(self, name) for name in self._KEPT}

    def _recall(self) -> None:
        for name, value in self._kept.items():
            setattr(self, name, value)
        self.changed.emit()

    def _look_again(self) -> None:
        _ = self.node
        self.changed.emit()
