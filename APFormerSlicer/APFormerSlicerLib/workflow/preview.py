"""A new proposal that is on the scene already, shown as a difference until it is kept or undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from apformer.errors import APFormerError, InputError
from apformer.jobs.exits import explain_error
from apformer.part import Part

from ..scene import Result, set_status, take_pieces, write_result
from ..scene.difference import difference, remove_difference, write_difference
from ..scene.edits import SegmentEditor
from ..scene.label_maps import stamp
from .hosts import Worker
from .kept import read_part
from .proposals import Proposal, Proposals, volume_of
from .signals import Signal

Failed = Callable[[APFormerError], None]


@dataclass(frozen=True)
class Followed:
    """What a finished job left.

    Attributes:
        gained: whether there is a new proposal; if not, nothing was changed, and `warnings` say why.
        text: what was learned from, such as "2 corrected slices".
        added_ml, removed_ml: by label.
        warnings: what the user must be told.
        undoable: the Segment Editor's Undo takes it back too.
    """

    gained: bool
    text: str
    added_ml: Mapping[str, float]
    removed_ml: Mapping[str, float]
    seconds: float
    device: str
    warnings: tuple[str, ...]
    undoable: bool = False

    @staticmethod
    def from_data(data: Mapping[str, Any], undoable: bool = False) -> Followed:
        """From the worker's result."""
        return Followed(
            bool(data.get("gained")),
            str(data.get("followed", "")),
            dict(data.get("added_ml", {})),
            dict(data.get("removed_ml", {})),
            float(data.get("seconds") or 0.0),
            str(data.get("device", "")),
            tuple(dict.fromkeys(data.get("warnings", ()))),
            undoable,
        )


@dataclass(frozen=True, eq=False)
class Pending:
    """A new proposal that is neither kept nor undone. `before`: the file with the segments as they were, and where it
    lies; `made_by`, `statuses`: what was told of them; `stamp`: of the segments since."""

    followed: Followed
    earlier: Proposal
    proposal: Proposal
    before: tuple[Path, Mapping[str, Any]]
    made_by: Any
    statuses: Mapping[str, Any]
    stamp: tuple[int, ...]


class Previews:
    """Those of one scene.

    Args:
        editor: gives what makes results undoable.
        changed: is told of segmentations whose difference is there, or that were undone.
    """

    def __init__(
        self, worker: Worker, proposals: Proposals, editor: Callable[[], SegmentEditor | None], changed: Signal[Any]
    ) -> None:
        self._worker, self._proposals, self._editor, self._changed = worker, proposals, editor, changed
        self._pending: dict[Any, Pending] = {}
        self._differences: dict[Any, Any] = {}  # their nodes

    def add(self, segmentation_node: Any, pending: Pending) -> None:
        """Find the difference aside, and lay it over the image."""
        volume_node = volume_of(segmentation_node)
        self._pending[segmentation_node] = pending

        def done(part: Any, error: BaseException | None) -> None:
            if error is None and self._pending.get(segmentation_node) is pending:
                self._differences[segmentation_node] = write_difference(segmentation_node, volume_node, part)
                self._changed.emit(segmentation_node)

        self._worker.aside(lambda: difference(read_part(*pending.before), pending.proposal.kept.read("labels")), done)

    def of(self, segmentation_node: Any) -> Pending | None:
        """What is neither kept nor undone."""
        pending = self._pending.get(segmentation_node)
        if pending is None:
            return None
        try:
            present = self._proposals.of(segmentation_node)
        except InputError:  # segmented anew, or its volume was removed
            present = None
        if present is not pending.proposal:  # the Segment Editor's Undo was faster
            self.let_go(segmentation_node)
            return None
        return pending

    def undo(self, segmentation_node: Any, failed: Failed) -> None:
        """See `Following.undo`."""
        pending = self.of(segmentation_node)
        if pending is None:
            return
        volume_node, labels = volume_of(segmentation_node), pending.proposal.kept.labels
        pieces, drawn_at = take_pieces(segmentation_node, volume_node, labels), stamp(segmentation_node)

        def restored() -> Part:
            before = read_part(*pending.before)
            if drawn_at == pending.stamp:
                return before
            now, after = pieces.compose(), pending.proposal.labels()
            return Part.of(np.where(now == after, before.whole(), now).astype(np.uint8))

        def done(part: Any, error: BaseException | None) -> None:
            if self._pending.get(segmentation_node) is not pending:
                return
            if error is not None:
                failed(explained(error))
            elif stamp(segmentation_node) != drawn_at:  # a stroke ended meanwhile
                self.undo(segmentation_node, failed)
            else:
                self._bring_back(segmentation_node, volume_node, pending, part)

        self._worker.aside(restored, done)

    def let_go(self, node: Any) -> bool:
        """It is kept, or gone: its difference is shown no more. Whether there was one."""
        found, shown = self._pending.pop(node, None) is not None, self._differences.pop(node, None)
        if node.GetScene() is not None:
            remove_difference(node)
        elif shown is not None and shown.GetScene() is not None:  # it stays where its segmentation is removed
            shown.GetScene().RemoveNode(shown)
        return found

    def clear(self) -> None:
        """The scene takes the nodes with it."""
        self._pending.clear()
        self._differences.clear()

    def _bring_back(self, node: Any, volume_node: Any, pending: Pending, part: Part) -> None:
        result = Result(part, pending.earlier.kept.labels, pending.made_by)
        written = write_result(volume_node, result, node, self._editor())
        for name, status in pending.statuses.items():
            set_status(node.GetSegmentation().GetSegment(written.segment_ids[name]), status)
        self.let_go(node)
        self._proposals.of(node)  # the segments are of the earlier one: what is told of it comes back too
        self._changed.emit(node)


def explained(error: BaseException) -> APFormerError:
    """What went wrong in a thread, for a user."""
    return error if isinstance(error, APFormerError) else explain_error(error, None)
