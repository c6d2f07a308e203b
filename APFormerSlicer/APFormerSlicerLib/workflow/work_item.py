"""One image of a work list: a volume of the scene, or a file that is loaded when its turn comes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from apformer.errors import APFormerError

from ..scene import Status, status_of
from ..scene.provenance import of_segment
from .doubts import doubt_of, read_doubt
from .image_files import ImageFile, Stamp
from .runs import RUNNING, Run
from .segmenting import Ahead
from .wording import sentence

WAITING, SEGMENTING, TO_REVIEW = "waiting", "segmenting", "to review"
ACCEPTED, FLAGGED, STORED, FAILED = "accepted", "flagged", "stored", "failed"
STATUSES = (TO_REVIEW, ACCEPTED, FLAGGED, SEGMENTING, WAITING, FAILED, STORED)

_MARK = "APFormer.WorkItem"  # attribute of the volume: saved with the scene


@dataclass(eq=False)
class WorkItem:
    """An image, and how far the work on it is.

    Attributes:
        place: in the order as given.
        volume_node: None while the image is a file that is not loaded.
        image: the file; None for a volume that somebody else loaded.
        patient: whose it is, where a file tells; kept in memory only.
        run: the last segmentation that the list asked for. ahead: its result, until the image is loaded.
        stored: the name of the case that it became in the data set.
        error: why it could not be segmented or loaded.
        last_doubt: what was known before the image was unloaded.
    """

    place: int
    title: str
    volume_node: Any = None
    image: ImageFile | None = None
    patient: str | None = None
    run: Run | None = None
    ahead: Ahead | None = None
    ahead_stamp: Stamp = None
    stored: str | None = None
    error: APFormerError | None = None
    last_doubt: float | None = field(default=None, repr=False)

    @property
    def status(self) -> str:
        if self.stored is not None:
            return STORED
        if self.run is not None and not self.run.over:
            return SEGMENTING if self.run.status == RUNNING else WAITING
        segmentation = self.segmentation_node
        if segmentation is not None:
            return _judged(segmentation)
        if self.error is not None:
            return FAILED
        return WAITING if self.ahead is None else TO_REVIEW

    @property
    def reason(self) -> str:
        """Why it failed; empty otherwise."""
        return sentence(self.error) if self.error is not None and self.status == FAILED else ""

    @property
    def doubt(self) -> float | None:
        """How unsure the model was of it, 0 to 1; None while that is not known."""
        segmentation = self.segmentation_node
        if segmentation is not None:
            return doubt_of(segmentation)
        return self.last_doubt if self.ahead is None else read_doubt(self.ahead.data.get("doubt"))

    @property
    def segmentation_node(self) -> Any:
        """The newest segmentation of the volume that has segments; None where there is none."""
        return next(iter(self.segmentation_nodes), None)

    @property
    def segmentation_nodes(self) -> list[Any]:
        """All that were drawn on the volume and have segments, the newest first."""
        if self.volume_node is None:
            return []
        scene, kind = self.volume_node.GetScene(), "vtkMRMLSegmentationNode"
        count = 0 if scene is None else scene.GetNumberOfNodesByClass(kind)
        return [
            node for n in reversed(range(count)) if _is_of(node := scene.GetNthNodeByClass(n, kind), self.volume_node)
        ]

    def mark(self) -> None:
        """Keep on the volume what is to be saved with the scene."""
        if self.volume_node is not None:
            told = {"place": self.place, "stored": self.stored}
            self.volume_node.SetAttribute(_MARK, json.dumps(told))

    def unmark(self) -> None:
        if self.volume_node is not None:
            self.volume_node.SetAttribute(_MARK, None)


def marked_item(volume_node: Any) -> WorkItem | None:
    """The item that a volume of the scene was when it was saved; None when it was none."""
    try:
        told = json.loads(volume_node.GetAttribute(_MARK) or "null")
        stored = told["stored"]
        item = WorkItem(int(told["place"]), str(volume_node.GetName()), volume_node)
    except (ValueError, TypeError, KeyError):  # none, or edited by hand
        return None
    item.stored = stored if isinstance(stored, str) else None
    return item


def _judged(segmentation_node: Any) -> str:
    """What a person made of it: one flagged segment flags it, all that a model proposed have to be accepted."""
    segmentation = segmentation_node.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    proposed = [segment for segment in segments if of_segment(segment) is not None] or segments
    if any(status_of(segment) == Status.FLAGGED for segment in segments):
        return FLAGGED
    return ACCEPTED if all(status_of(segment) == Status.COMPLETED for segment in proposed) else TO_REVIEW


def _is_of(segmentation_node: Any, volume_node: Any) -> bool:
    drawn_on = segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())
    if drawn_on is not volume_node or segmentation_node.GetHideFromEditors():  # such as the difference of two proposals
        return False
    return bool(segmentation_node.GetSegmentation().GetNumberOfSegments() > 0)
