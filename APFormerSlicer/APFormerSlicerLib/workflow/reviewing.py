"""Review: volumes, maps of doubt, the next place to check, and a verdict on each segment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import slicer
from apformer.errors import ConfigError, InputError

from ..scene import Status, set_status, status_of
from ..scene.geometry import one_update
from ..scene.overlays import LOOKS, hide, overlay, show
from ..scene.provenance import of_segment
from ..scene.tags import set_tag, tag
from .hosts import Worker
from .kept import KeptResults
from .places import Place, places_of
from .result_notes import keep, kept
from .signals import Signal
from .tally import Tally

_VISITED = "APFormer.Visited"  # attribute of the segmentation
_COMMENT = "APFormer.Comment"  # tag of a segment
LONGEST_COMMENT = 500  # characters; as in the site's data set, which takes it over


@dataclass(frozen=True)
class SegmentRow:
    """A segment as a table shows it. `model`: what proposed it, such as "liver-ct 1.1.0"; None for a person's.
    `volume_ml`: None while the voxels of a large one are counted; `Reviewing.changed` tells when they are."""

    segment_id: str
    name: str
    volume_ml: float | None
    status: Status
    model: str | None
    comment: str


class Reviewing:
    """Looks at segmentations of one scene; what was decided and visited is kept on them, and saved with the scene.

    Attributes:
        changed: a status, comment, volume or visited place of that segmentation changed.
    """

    def __init__(self, scene: Any, worker: Worker, kept: KeptResults) -> None:
        self.changed: Signal[Any] = Signal()
        self._scene, self._kept = scene, kept
        self._tally = Tally(worker, self.changed.emit)

    def rows(self, segmentation_node: Any) -> list[SegmentRow]:
        """The segments in their order, with volumes as they are now.

        Raises:
            InputError: the segmentation was removed.
        """
        self._require(segmentation_node)
        segmentation = segmentation_node.GetSegmentation()
        return [
            self._row(segmentation_node, segmentation.GetNthSegmentID(number))
            for number in range(segmentation.GetNumberOfSegments())
        ]

    def _row(self, segmentation_node: Any, segment_id: str) -> SegmentRow:
        segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
        made_by = of_segment(segment)
        return SegmentRow(
            segment_id,
            segment.GetName(),
            self._tally.volume_ml(segmentation_node, segment_id),
            status_of(segment),
            None if made_by is None else f"{made_by.model} {made_by.model_version}",
            comment_of(segment),
        )

    # ---------------------------------------------------------------- maps

    def maps(self, segmentation_node: Any) -> list[str]:
        """The maps that there are of the result: "uncertainty", "kept_tokens"."""
        self._require(segmentation_node)
        unseen = self._kept.unseen(segmentation_node)
        return [name for name in LOOKS if name in unseen or overlay(segmentation_node, name) is not None]

    def show_map(self, segmentation_node: Any, name: str | None, opacity: float = 0.5) -> None:
        """Lay a map over the image, and take the others off; None takes all off.

        Raises:
            InputError: the segmentation was removed, or has no such map.
        """
        self._require(segmentation_node)
        wanted = None if name is None else self.map_node(segmentation_node, name)
        for other in LOOKS:
            node = overlay(segmentation_node, other)
            if node is not None and node is not wanted:
                hide(node)
        if wanted is not None:
            show(wanted, opacity)

    def map_node(self, segmentation_node: Any, name: str) -> Any:
        """The volume node of a map, which is made the first time it is asked for.

        Raises:
            InputError: the segmentation was removed, or has no such map.
        """
        self._require(segmentation_node)
        node = self._kept.overlay(segmentation_node, name)
        if node is None or node.GetImageData() is None:
            raise _no_map(segmentation_node, name)
        return node

    # ---------------------------------------------------------------- places to check

    def places(self, segmentation_node: Any) -> list[Place]:
        """All places to check, the most uncertain first, as the worker found them.

        Raises:
            InputError: the segmentation was removed, or none are known of its result.
        """
        self._require(segmentation_node)
        found = places_of(segmentation_node)
        if found is None:
            raise _no_map(segmentation_node, "uncertainty")
        return found

    def left(self, segmentation_node: Any) -> int:
        """How many places were not visited yet."""
        return len(self._unvisited(segmentation_node))

    def next_place(self, segmentation_node: Any) -> Place | None:
        """Go to the most uncertain place that was not visited: slice views are centred on it. None when all were."""
        unvisited = self._unvisited(segmentation_node)
        if not unvisited:
            return None
        place = unvisited[0]
        visited = self._visited(segmentation_node) | {place.ijk}
        self._remember(segmentation_node, visited)
        node = slicer.vtkMRMLSliceNode
        node.JumpAllSlices(self._scene, *place.ras, node.CenteredJumpSlice)
        return place

    def visit_again(self, segmentation_node: Any) -> None:
        """Forget which places were visited."""
        self._require(segmentation_node)
        self._remember(segmentation_node, set())

    # ---------------------------------------------------------------- verdicts

    def accept(self, segmentation_node: Any, segment_ids: Iterable[str] | None = None) -> None:
        """Mark segments as completed: those named, else all that a model proposed, else all.

        Raises:
            InputError: the segmentation was removed, or has no segments.
        """
        self._judge(segmentation_node, segment_ids, Status.COMPLETED, "")

    def flag(self, segmentation_node: Any, comment: str, segment_ids: Iterable[str] | None = None) -> None:
        """Mark segments as flagged, and say why.

        Raises:
            InputError: as `accept`. ConfigError: the comment is too long.
        """
        text = " ".join(comment.split())
        if len(text) > LONGEST_COMMENT:
            raise ConfigError(
                f"The comment has {len(text)} characters.",
                "It is kept with the segment.",
                f"Write at most {LONGEST_COMMENT}.",
            )
        self._judge(segmentation_node, segment_ids, Status.FLAGGED, text)

    def _judge(self, node: Any, segment_ids: Iterable[str] | None, status: Status, comment: str) -> None:
        rows = self.rows(node)
        proposed = [row for row in rows if row.model is not None] or rows
        wanted = {row.segment_id for row in proposed} if segment_ids is None else set(segment_ids)
        chosen = [row.segment_id for row in rows if row.segment_id in wanted]
        if not chosen:
            raise InputError(
                f"{node.GetName()} has no segment to decide on.", "Nothing was marked.", "Choose one or more segments."
            )
        with one_update(node):
            for segment_id in chosen:
                segment = node.GetSegmentation().GetSegment(segment_id)
                set_status(segment, status)
                set_tag(segment, _COMMENT, comment)
        self.changed.emit(node)

    def _unvisited(self, segmentation_node: Any) -> list[Place]:
        places = self.places(segmentation_node)
        visited = self._visited(segmentation_node)
        return [place for place in places if place.ijk not in visited]

    def _visited(self, segmentation_node: Any) -> set[tuple[int, ...]]:
        """Voxels that were visited since the present result was written."""
        try:
            return {tuple(int(index) for index in ijk) for ijk in kept(segmentation_node, _VISITED, "ijk") or ()}
        except (ValueError, TypeError):  # edited by hand
            return set()

    def _remember(self, segmentation_node: Any, visited: set[tuple[int, ...]]) -> None:
        keep(segmentation_node, _VISITED, "ijk", sorted(visited))
        self.changed.emit(segmentation_node)

    def _require(self, node: Any) -> None:
        if node is None:
            raise InputError("No segmentation is chosen.", "There is nothing to review.", "Segment a volume first.")
        if node.GetScene() is not self._scene:
            raise InputError(
                f"{node.GetName()} was removed from the scene.",
                "There is nothing to review.",
                "Choose another segmentation, or segment the volume again.",
            )


def comment_of(segment: Any) -> str:
    """Why a segment was flagged; empty when it was not."""
    return tag(segment, _COMMENT) or ""


def _no_map(segmentation_node: Any, name: str) -> InputError:
    title = LOOKS[name].title
    return InputError(
        f"{segmentation_node.GetName()} has no map of {title}.",
        "It was removed, not asked for when the volume was segmented, or an earlier version of the program made it.",
        f"Segment again, and ask for {title}.",
    )
