"""What was corrected of the segmentations of a scene, compared with their proposals in a thread of its own."""

from __future__ import annotations

from typing import Any

from apformer.errors import APFormerError, InputError
from apformer.following import Plane
from apformer.jobs.exits import explain_error

from ..scene import frames_of, take_pieces, to_volume
from ..scene.label_maps import stamp
from ..scene.provenance import of_node
from ..scene.segments import segment_ids
from .corrected import Corrected, compare
from .hosts import Worker
from .marks import marked, set_marked
from .proposals import Proposal, Proposals, volume_of
from .signals import Signal


class Correcting:
    """Those of one scene.

    Args:
        changed: is told of segmentations of which more is known, or marked, now.
    """

    def __init__(self, scene: Any, worker: Worker, proposals: Proposals, changed: Signal[Any]) -> None:
        self._scene, self._worker, self._proposals, self._changed = scene, worker, proposals, changed
        self._seen: dict[Any, tuple[object, Corrected | None]] = {}  # None: it is being compared

    def corrected(self, segmentation_node: Any) -> Corrected | None:
        """What counts now; None while it is compared, of which `changed` tells the end.

        Raises:
            InputError: there is no proposal to compare with, or it does not fit the volume.
        """
        volume_node, proposal = self.of(segmentation_node)
        key = stamp(segmentation_node), marked(segmentation_node), proposal, _names(segmentation_node)
        seen = self._seen.get(segmentation_node)
        if seen is None or seen[0] != key:
            self._seen[segmentation_node] = key, None
            self._compare(segmentation_node, volume_node, proposal, key)
        return self._seen[segmentation_node][1]

    def mark(self, segmentation_node: Any, plane: Plane, right: bool) -> None:
        """Mark a slice as right, or take the mark back.

        Args:
            plane: axis 0, 1, 2 for k, j, i of the volume's array.

        Raises:
            InputError: as `corrected`; the volume has no such slice.
        """
        _, proposal = self.of(segmentation_node)
        shape = proposal.kept.shape_kji
        if plane.axis not in (0, 1, 2) or not 0 <= plane.number < shape[plane.axis]:
            raise InputError(
                f"The volume has no slice {plane.number + 1} there.",
                "Nothing was marked.",
                "Go to a slice of the volume, then mark it.",
            )
        present = marked(segmentation_node)
        set_marked(segmentation_node, present | {plane} if right else present - {plane})
        self._changed.emit(segmentation_node)

    def of(self, segmentation_node: Any) -> tuple[Any, Proposal]:
        """The volume, and what was proposed for it.

        Raises:
            InputError: there is no proposal to compare with, or it does not fit the volume.
        """
        if segmentation_node is None or segmentation_node.GetScene() is not self._scene:
            raise InputError("No segmentation is chosen.", "Nothing was corrected.", "Segment a volume first.")
        proposal = self._proposals.of(segmentation_node)
        volume_node = volume_of(segmentation_node)
        if frames_of(volume_node) is not None:
            raise InputError(
                f"{volume_node.GetName()} shows the frames of a sequence.",
                "Corrections of one frame are not told from those of another.",
                "Export the frame as a volume of its own (Sequences module), and segment that.",
            )
        if to_volume(volume_node).spatial_shape != proposal.kept.shape_kji:
            raise _changed(volume_node)
        made_by = of_node(segmentation_node)
        if made_by is not None and made_by.parameters.get("roi"):
            raise InputError(
                "The model was asked for a region of interest only.",
                "The rest of the volume has no proposal that corrections could be compared with.",
                "Segment the whole volume, then correct it.",
            )
        return volume_node, proposal

    def _compare(self, node: Any, volume_node: Any, proposal: Proposal, key: object) -> None:
        known, right = proposal.kept.labels, marked(node)
        lacking = [label.name for label in known if label.name not in segment_ids(node, known)]

        def look() -> Corrected:
            try:
                labels = pieces.compose()
                settled = proposal.settled(right)
                return compare(proposal.labels(), labels, known, right, settled, lacking, proposal.right)
            except APFormerError as error:
                return Corrected(shape, error=error)

        def done(found: Any, error: BaseException | None) -> None:
            if self._seen.get(node) != (key, None):
                return  # it was edited meanwhile, and is asked again
            if error is not None:
                found = Corrected(shape, error=explain_error(error, None))
            self._seen[node] = key, found
            if node.GetScene() is not None:
                self._changed.emit(node)

        k, j, i = proposal.kept.shape_kji
        shape = k, j, i
        pieces = take_pieces(node, volume_node, known)
        self._worker.aside(look, done)

    def forget(self, segmentation_node: Any) -> None:
        self._seen.pop(segmentation_node, None)

    def clear(self) -> None:
        self._seen.clear()


def _changed(volume_node: Any) -> InputError:
    return InputError(
        f"{volume_node.GetName()} has another size than when it was segmented.",
        "What the model had proposed does not fit it.",
        "Segment it again, then correct it; what was drawn stays as it is.",
    )


def _names(segmentation_node: Any) -> tuple[str, ...]:
    segmentation = segmentation_node.GetSegmentation()
    return tuple(segmentation.GetNthSegment(number).GetName() for number in range(segmentation.GetNumberOfSegments()))
