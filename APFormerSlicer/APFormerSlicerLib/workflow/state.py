"""What the user has chosen, in a node of the scene: saved and restored with it, seen alike by all hosts and scripts."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import slicer

from .scene_watch import Observation, SceneWatch
from .signals import Signal

REGION = "APFormer.region"  # role of a node that a volume refers to
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
        if self.role in state.leaving:  # a widget moves on to its next row; nobody chose that
            node = None
        wanted = None if node is None else node.GetID()
        if state.node.GetNodeReferenceID(self.role) != wanted:
            state.node.SetNodeReferenceID(self.role, wanted)


class Region(Reference):
    """The region of interest of the chosen volume, kept with that volume: another one has another, or none.

    One that is chosen while there is no volume becomes that of the first volume that is.
    """

    def __get__(self, state: State, owner: type) -> Any:
        return region_of(state.volume) if state.volume is not None else super().__get__(state, owner)

    def __set__(self, state: State, node: Any) -> None:
        if self.role in state.leaving:
            node = None
        if state.volume is None:
            super().__set__(state, node)
        elif region_of(state.volume) is not node:
            state.volume.SetNodeReferenceID(REGION, None if node is None else node.GetID())
            state.node.Modified()  # which tells all who look


class ChosenVolume(Reference):
    """The volume; a region that was chosen before it becomes its own, where it has none."""

    def __set__(self, state: State, node: Any) -> None:
        waiting = state.node.GetNodeReference("roi")
        if waiting is not None and node is not None:
            state.node.SetNodeReferenceID("roi", None)
            if region_of(node) is None:
                node.SetNodeReferenceID(REGION, waiting.GetID())
        super().__set__(state, node)


def region_of(volume_node: Any) -> Any:
    """The region of interest that was chosen for a volume; None when there is none in the scene."""
    return volume_node.GetNodeReference(REGION) if hasattr(volume_node, "GetNodeReference") else None


class State:
    """The choices of one scene.

    Attributes:
        volume, segmentation, roi: nodes, or None; see `Region`. What is removed from the scene is chosen no more, and
            nothing is in its place.
        model: a reference, "" for none. device: "auto", "cpu", ... maps: those wanted beside the labels.
        site: folder of the site's data set, "" for none. who: the name that goes with corrections, "" for none.
        tuning: see `tuning.Choices`.
        order: of the work list, "given" or "unsure".
        others: what structures without a segment are, see `Collecting.add`; "" until somebody has said it.
        changed: after every change, whoever made it.
        leaving: roles of nodes that are just being removed.
    """

    volume = ChosenVolume("volume")
    segmentation = Reference("segmentation")
    roi = Region("roi")
    model: Parameter[str] = Parameter("model", "")
    device: Parameter[str] = Parameter("device", "auto")
    maps: Parameter[list[str]] = Parameter("maps", ["uncertainty"])
    site: Parameter[str] = Parameter("site", "")
    who: Parameter[str] = Parameter("who", "")
    others: Parameter[str] = Parameter("others", "")
    tuning: Parameter[dict[str, Any]] = Parameter("tuning", {})
    order: Parameter[str] = Parameter("order", "given")

    # What a user chooses for a day of work, not for one patient: closing the scene keeps it.
    _KEPT = ("model", "device", "maps", "site", "who", "others", "tuning", "order")

    def __init__(self, watch: SceneWatch) -> None:
        self.changed: Signal[()] = Signal()
        self._watch = watch
        self._observed: Any = None
        self._observation: Observation | None = None
        self._kept: dict[str, Any] = {}
        self.leaving: set[str] = set()
        watch.leaving.connect(self._let_go)
        watch.removed.connect(self._gone)
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
        self._watch.leaving.disconnect(self._let_go)
        self._watch.removed.disconnect(self._gone)
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

    def _let_go(self, node: Any) -> None:
        """A chosen node is about to be removed. Choosers of nodes (qMRMLNodeComboBox) then show their next row and say
        that it was chosen, before the node has gone; https://doc.qt.io/qt-5/qcombobox.html#currentIndex-prop."""
        chosen = {"volume": self.volume, "segmentation": self.segmentation, "roi": self.roi}
        self.leaving |= {role for role, one in chosen.items() if one is not None and one is node}
        for role in self.leaving:
            setattr(self, role, None)

    def _gone(self, _node: Any) -> None:
        if self.leaving:
            self.leaving.clear()
            self.changed.emit()  # for who shows another row

    def _remember(self) -> None:
        self._kept = {name: getattr(self, name) for name in self._KEPT}

    def _recall(self) -> None:
        for name, value in self._kept.items():
            setattr(self, name, value)
        self.changed.emit()

    def _look_again(self) -> None:
        _ = self.node
        self.changed.emit()
