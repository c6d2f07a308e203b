"""A new proposal that is on the scene already, shown as a difference until it is kept or undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from apformer.bundles import Label
from apformer.errors import APFormerError
from apformer.jobs.exits import explain_error
from apformer.part import Part

from ..scene import take_pieces
from ..scene.difference import difference, remove_difference, together, write_difference
from ..scene.edits import SegmentEditor
from ..scene.label_maps import stamp
from .hosts import Worker
from .proposals import volume_of
from .signals import Signal

Failed = Callable[[APFormerError], None]


@dataclass(frozen=True)
class Followed:
    """What a finished job left.

    Attributes:
        gained: whether there is a new proposal; if not, nothing was changed, and `warnings` say why.
        text: what was learned from, such as "2 corrected slices and 3 outlined slices of Tumour".
        added_ml, removed_ml: by label.
        warnings: what the user must be told.
        undoable: the Segment Editor's Undo takes it back too.
        adapted: a model learned, which can be kept for the next patients.
    """

    gained: bool
    text: str
    added_ml: Mapping[str, float]
    removed_ml: Mapping[str, float]
    seconds: float
    device: str
    warnings: tuple[str, ...]
    undoable: bool = False
    adapted: bool = False

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Followed:
        """From the worker's result: what a model learned, what lies between outlines, or both. Of these, what gained
        nothing is told in the warnings only."""
        told = [data, data.get("outlined", {})]
        used = [one for one in told if one.get("gained")] or told
        return Followed(
            any(one.get("gained") for one in told),
            " and ".join(str(one["followed"]) for one in used if one.get("followed")),
            {name: ml for one in used for name, ml in one.get("added_ml", {}).items()},
            {name: ml for one in used for name, ml in one.get("removed_ml", {}).items()},
            sum(float(one.get("seconds") or 0.0) for one in told),
            next((str(one["device"]) for one in used if one.get("device")), ""),
            tuple(dict.fromkeys(text for one in told for text in one.get("warnings", ()))),
            adapted=bool(data.get("gained")),
        )


@dataclass(frozen=True, eq=False)
class Sheet:
    """Segments that a job wrote together.

    Attributes:
        labels: theirs. before, after: read their label map as it was, and as the job made it; in any thread.
        is_present: whether the segments are still those of the job.
        put_back: write a label map with all that was told of the segments before; the editor's Undo takes that back.
    """

    labels: Sequence[Label]
    before: Callable[[], Part]
    after: Callable[[], Part]
    is_present: Callable[[], bool]
    put_back: Callable[[Part, SegmentEditor | None], object]


@dataclass(frozen=True, eq=False)
class Pending:
    """A new proposal that is neither kept nor undone. `stamp`: of the segments since; `model`: the folder of what
    learned, None where no model did."""

    followed: Followed
    sheets: tuple[Sheet, ...]
    stamp: tuple[int, ...]
    model: Path | None


class Previews:
    """Those of one scene.

    Args:
        editor: gives what makes results undoable.
        changed: is told of segmentations whose difference is there, or that were undone.
    """

    def __init__(self, worker: Worker, editor: Callable[[], SegmentEditor | None], changed: Signal[Any]) -> None:
        self._worker, self._editor, self._changed = worker, editor, changed
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

        self._worker.aside(lambda: together([difference(one.before(), one.after()) for one in pending.sheets]), done)

    def of(self, segmentation_node: Any) -> Pending | None:
        """What is neither kept nor undone."""
        pending = self._pending.get(segmentation_node)
        if pending is None:
            return None
        if not all(sheet.is_present() for sheet in pending.sheets):  # the Segment Editor's Undo was faster
            self.let_go(segmentation_node)
            return None
        return pending

    def undo(self, segmentation_node: Any, failed: Failed) -> None:
        """See `Following.undo`."""
        pending = self.of(segmentation_node)
        if pending is None:
            return
        volume_node, drawn_at = volume_of(segmentation_node), stamp(segmentation_node)
        present = [take_pieces(segmentation_node, volume_node, sheet.labels) for sheet in pending.sheets]

        def restored() -> list[Part]:
            if drawn_at == pending.stamp:
                return [sheet.before() for sheet in pending.sheets]
            return [_restored(sheet, pieces.compose()) for sheet, pieces in zip(pending.sheets, present, strict=True)]

        def done(parts: Any, error: BaseException | None) -> None:
            if self._pending.get(segmentation_node) is not pending:
                return
            if error is not None:
                failed(explained(error))
            elif stamp(segmentation_node) != drawn_at:  # a stroke ended meanwhile
                self.undo(segmentation_node, failed)
            else:
                self._bring_back(segmentation_node, pending, parts)

        self._worker.aside(restored, done)

    def let_go(self, node: Any) -> bool:
        """It is kept, or gone: its difference is shown no more. Whether there was one."""
        if node is None:
            return False
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

    def _bring_back(self, node: Any, pending: Pending, parts: Sequence[Part]) -> None:
        editor = self._editor()
        for sheet, part in zip(pending.sheets, parts, strict=True):
            sheet.put_back(part, editor)
            editor = None  # all of it is one step
        self.let_go(node)
        self._changed.emit(node)


def _restored(sheet: Sheet, now: np.ndarray) -> Part:
    """A label map as it was before, but for what was drawn since."""
    return Part.of(np.where(now == sheet.after().whole(), sheet.before().whole(), now).astype(np.uint8))


def explained(error: BaseException) -> APFormerError:
    """What went wrong in a thread, for a user."""
    return error if isinstance(error, APFormerError) else explain_error(error, None)
