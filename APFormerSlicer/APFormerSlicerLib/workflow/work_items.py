"""The items of a work list: added, ordered, found again in a scene that was saved, and gone with their volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .image_files import ImageFile
from .inputs import segmentable
from .scene_watch import SceneWatch
from .signals import Signal
from .work_item import WorkItem, marked_item

GIVEN, UNSURE = "given", "unsure"


class WorkItems:
    """Volumes of the scene, and files that are loaded when their turn comes.

    Attributes:
        changed: one came or went, or what is on the scene of it.
        dropped: one is no longer on the list.
    """

    def __init__(self, watch: SceneWatch) -> None:
        self.changed: Signal[()] = Signal()
        self.dropped: Signal[WorkItem] = Signal()
        self._watch = watch
        self._items: list[WorkItem] = []
        watch.removed.connect(self._node_removed)
        watch.closing.connect(self._scene_closing)
        watch.loaded.connect(self._find_marked)
        self._find_marked()

    def __iter__(self) -> Iterator[WorkItem]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def ordered(self, order: str) -> list[WorkItem]:
        """`GIVEN`: as they were added; `UNSURE`: the most unsure first, those of which that is not known last."""
        if order != UNSURE:
            return sorted(self._items, key=lambda item: item.place)
        doubts = {item: item.doubt for item in self._items}

        def key(item: WorkItem) -> tuple[bool, float, int]:
            doubt = doubts[item]
            return doubt is None, -(doubt or 0.0), item.place

        return sorted(self._items, key=key)

    def of(self, volume_node: Any) -> WorkItem | None:
        """The item of a volume of the scene."""
        if volume_node is None:
            return None
        return next((item for item in self._items if item.volume_node is volume_node), None)

    def add_volumes(self, volume_nodes: Iterable[Any]) -> None:
        """Those that are listed already stay where they are."""
        for node in volume_nodes:
            if self.of(node) is None:
                self._append(WorkItem(self._next_place(), str(node.GetName()), node))
        self.changed.emit()

    def add_images(self, images: Sequence[ImageFile]) -> None:
        """Those that are listed already stay where they are."""
        listed = {item.image.path for item in self._items if item.image is not None}
        for image in images:
            if image.path not in listed:
                self._append(WorkItem(self._next_place(), image.name, image=image, patient=image.patient))
        self.changed.emit()

    def remove(self, item: WorkItem) -> None:
        """Take it off the list; what is on the scene of it stays there."""
        item.unmark()
        self._drop(item)
        self.changed.emit()

    def stop(self) -> None:
        self._watch.removed.disconnect(self._node_removed)
        self._watch.closing.disconnect(self._scene_closing)
        self._watch.loaded.disconnect(self._find_marked)
        for item in self:
            self._drop(item)

    def _append(self, item: WorkItem) -> None:
        self._items.append(item)
        item.mark()

    def _next_place(self) -> int:
        return max((item.place for item in self._items), default=-1) + 1

    def _drop(self, item: WorkItem) -> None:
        if item in self._items:
            self._items.remove(item)
            self.dropped.emit(item)

    def _node_removed(self, node: Any) -> None:
        item = self.of(node)
        if item is not None:
            self._leave_scene(item)
        if item is not None or node.IsA("vtkMRMLSegmentationNode"):
            self.changed.emit()

    def _scene_closing(self) -> None:
        for item in self:
            if item.volume_node is not None:
                self._leave_scene(item)
        self.changed.emit()

    def _leave_scene(self, item: WorkItem) -> None:
        """Its volume has gone: what was a file is one again, to be segmented anew unless it was stored."""
        item.volume_node = None
        if item.image is None:
            self._drop(item)

    def _find_marked(self) -> None:
        """Items of a scene that was loaded."""
        for node in segmentable(self._watch.scene):
            item = marked_item(node) if self.of(node) is None else None
            if item is not None:
                self._items.append(item)
        self.changed.emit()
