"""Which proposal the segments of a segmentation come from.

A proposal of which something was corrected may be followed by another, and the Segment Editor's Undo and Redo go back
and forth between them. What made a segment is written on it and undone with it; so that tells which proposal is meant,
and what is kept of it is put in the place of the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from apformer.errors import InputError
from apformer.following import Plane

from ..scene import segment_ids
from ..scene.provenance import of_node, of_segment
from .hosts import Worker
from .kept import Kept, KeptResults, read_part
from .scene_watch import SceneWatch

_PREFIX = "APFormer."  # of the attributes that tell of a result
MOST = 11  # as many as the Segment Editor can undo, and the present one


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a model proposed.

    Attributes:
        date: when, as written on its segments.
        certain: the file with what was settled before it, and where that lies; None for the first.
        right: the slices that were marked as right then.
    """

    kept: Kept
    date: str
    certain: tuple[Path, Mapping[str, Any]] | None = None
    right: frozenset[Plane] = frozenset()

    def labels(self) -> np.ndarray:
        """uint8 (k, j, i), a copy. Raises InputError when its file cannot be read."""
        return self.kept.read("labels").whole()

    def settled(self, right: frozenset[Plane]) -> np.ndarray | None:
        """Bool (k, j, i): what is certain since earlier, but for slices that are no longer among `right`."""
        if self.certain is None:
            return None
        flags: np.ndarray = read_part(*self.certain).whole() > 0
        for axis, number in self.right - right:
            flags[(slice(None),) * axis + (number,)] = False
        return flags


@dataclass
class _Told:
    """The proposals of one segmentation, and what was told of each on the node when another one took its place."""

    current: Proposal
    others: list[tuple[Proposal, dict[str, str]]] = field(default_factory=list)


class Proposals:
    """Those of one scene."""

    def __init__(self, watch: SceneWatch, worker: Worker, kept: KeptResults) -> None:
        self._worker, self._kept = worker, kept
        self._told: dict[Any, _Told] = {}
        watch.removed.connect(self._forget)
        watch.closing.connect(self.clear)

    def of(self, segmentation_node: Any) -> Proposal:
        """The one that the segments come from.

        Raises:
            InputError: it is not known any more.
        """
        volume_node = volume_of(segmentation_node)
        kept = self._kept.of(segmentation_node, volume_node)
        if kept is None:
            raise _not_known(segmentation_node)
        told = self._told.get(segmentation_node)
        if told is None or told.current.kept is not kept:  # segmented since
            self._forget(segmentation_node)
            made_by = of_node(segmentation_node)
            told = self._told[segmentation_node] = _Told(Proposal(kept, "" if made_by is None else made_by.date))
        dates = _dates(segmentation_node, told.current)
        if dates and dates != {told.current.date}:
            self._switch(segmentation_node, volume_node, told, dates)
        return told.current

    def add(self, segmentation_node: Any, proposal: Proposal, before: Mapping[str, str]) -> None:
        """Another one is on the scene. `before`: `attributes` as they were."""
        told = self._told[segmentation_node]
        earlier = told.current
        self._kept.swap(segmentation_node, volume_of(segmentation_node), proposal.kept)
        told.current = proposal
        told.others.append((earlier, dict(before)))
        for lost, _ in told.others[: 1 - MOST]:
            self._worker.discard(lost.kept.folder)
        told.others = told.others[1 - MOST :]

    def clear(self) -> None:
        for node in list(self._told):
            self._forget(node)

    def _switch(self, node: Any, volume_node: Any, told: _Told, dates: set[str]) -> None:
        """Undo or Redo has brought back another one."""
        found = next((pair for pair in told.others if {pair[0].date} == dates), None)
        if found is None:
            raise _not_known(node)
        told.others.remove(found)
        told.others.append((told.current, attributes(node)))
        told.current = found[0]
        self._kept.swap(node, volume_node, found[0].kept)
        _set_attributes(node, found[1])

    def _forget(self, node: Any) -> None:
        told = self._told.pop(node, None)
        if told is not None:  # the present one's files are not ours to discard
            for proposal, _ in told.others:
                self._worker.discard(proposal.kept.folder)


def volume_of(segmentation_node: Any) -> Any:
    """The volume that it was drawn on; None when that was removed."""
    return segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())


def attributes(node: Any) -> dict[str, str]:
    """What is told of the present result on its segmentation."""
    names = [name for name in node.GetAttributeNames() if name.startswith(_PREFIX)]
    return {name: str(node.GetAttribute(name)) for name in names}


def _set_attributes(node: Any, wanted: Mapping[str, str]) -> None:
    for name in attributes(node).keys() - wanted.keys():
        node.RemoveAttribute(name)
    for name, text in wanted.items():
        node.SetAttribute(name, text)


def _dates(segmentation_node: Any, proposal: Proposal) -> set[str]:
    """When the segments of the model's labels were made, of those that a model made."""
    segmentation = segmentation_node.GetSegmentation()
    ids = segment_ids(segmentation_node, proposal.kept.labels).values()
    found = (of_segment(segmentation.GetSegment(segment_id)) for segment_id in ids)
    return {made_by.date for made_by in found if made_by is not None}


def _not_known(segmentation_node: Any) -> InputError:
    return InputError(
        f"What a model had proposed for {segmentation_node.GetName()} is not known any more.",
        "What was corrected since cannot be told from what was proposed.",
        "Segment the volume again, then correct it.",
    )
