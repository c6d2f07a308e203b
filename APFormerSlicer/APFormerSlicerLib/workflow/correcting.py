"""What was corrected of the segmentations of a scene and outlined on them, found in a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apformer.bundles import Label
from apformer.errors import APFormerError, InputError
from apformer.following import Plane
from apformer.jobs.exits import explain_error

from ..scene import Status, frames_of, status_of, take_pieces, to_volume
from ..scene.label_maps import stamp
from ..scene.provenance import model_of, of_node
from ..scene.segments import segment_ids
from .corrected import Corrected, NoProposalError, compare
from .hosts import Worker
from .marks import marked, set_marked
from .outlining import Outlining
from .proposals import Proposal, Proposals, volume_of
from .signals import Signal


class Correcting:
    """Those of one scene.

    Args:
        changed: is told of segmentations of which more is known, or marked, now.
    """

    def __init__(
        self, scene: Any, worker: Worker, proposals: Proposals, outlining: Outlining, changed: Signal[Any]
    ) -> None:
        self._scene, self._worker, self._changed = scene, worker, changed
        self._proposals, self._outlining = proposals, outlining
        self._seen: dict[Any, tuple[object, Corrected | None]] = {}  # None: it is being compared

    def corrected(self, segmentation_node: Any) -> Corrected | None:
        """What counts now; None while it is compared, of which `changed` tells the end.

        Raises:
            InputError: as `of`, or it has surfaces only.
        """
        volume_node, proposal = self.of(segmentation_node)
        by = proposal.what if isinstance(proposal, APFormerError) else proposal
        key = stamp(segmentation_node), marked(segmentation_node), by, _told(segmentation_node)
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
            InputError: as `of`; no model proposed anything that could be right; the volume has no such slice.
        """
        volume_node, proposal = self.of(segmentation_node)
        if isinstance(proposal, APFormerError):
            raise proposal
        shape = to_volume(volume_node).spatial_shape
        if plane.axis not in (0, 1, 2) or not 0 <= plane.number < shape[plane.axis]:
            raise InputError(
                f"The volume has no slice {plane.number + 1} there.",
                "Nothing was marked.",
                "Go to a slice of the volume, then mark it.",
            )
        present = marked(segmentation_node)
        set_marked(segmentation_node, present | {plane} if right else present - {plane})
        self._changed.emit(segmentation_node)

    def of(self, segmentation_node: Any) -> tuple[Any, Proposal | APFormerError]:
        """The volume, and what a model proposed for it, or why there is nothing to compare corrections with.

        Raises:
            InputError: there is no segmentation, or nothing can follow on its volume.
        """
        if segmentation_node is None or segmentation_node.GetScene() is not self._scene:
            raise InputError("No segmentation is chosen.", "Nothing was corrected.", "Segment a volume first.")
        volume_node = volume_of(segmentation_node)
        if volume_node is None or volume_node.GetImageData() is None:
            raise InputError(
                f"The image that {segmentation_node.GetName()} was drawn on is not known any more.",
                "What was drawn cannot be followed in it.",
                "Load it, and choose it as the segmentation's source volume (Segment Editor), or segment it again.",
            )
        if frames_of(volume_node) is not None:
            raise InputError(
                f"{volume_node.GetName()} shows the frames of a sequence.",
                "Corrections of one frame are not told from those of another.",
                "Export the frame as a volume of its own (Sequences module), and segment that.",
            )
        try:
            proposal = self._proposals.of(segmentation_node)
        except InputError as error:
            return volume_node, error if _by_model(segmentation_node) else _no_proposal(segmentation_node)
        if to_volume(volume_node).spatial_shape != proposal.kept.shape_kji:
            raise _changed(volume_node)
        made_by = of_node(segmentation_node)
        if made_by is not None and made_by.parameters.get("roi"):
            return volume_node, InputError(
                "The model was asked for a region of interest only.",
                "The rest of the volume has no proposal that corrections could be compared with.",
                "Segment the whole volume, then correct it.",
            )
        return volume_node, proposal

    def _compare(self, node: Any, volume_node: Any, proposal: Proposal | APFormerError, key: object) -> None:
        """Look at the segments aside. Raises InputError when they cannot be taken from the scene."""
        k, j, i = to_volume(volume_node).spatial_shape
        without = proposal if isinstance(proposal, APFormerError) else None
        right, known = marked(node), () if isinstance(proposal, APFormerError) else proposal.kept.labels
        lacking = [label.name for label in known if label.name not in segment_ids(node, known)]
        accepted = _accepted(node, known)
        own = self._outlining.take(node, volume_node, known)
        pieces = take_pieces(node, volume_node, known) if known else None

        def look() -> Corrected:
            outlines = own.look()
            try:
                if isinstance(proposal, APFormerError) or pieces is None:
                    return Corrected((k, j, i), error=without, outlines=outlines)
                labels = own.over(pieces.compose(), known, outlines.partial)
                settled = proposal.settled(right)
                found = compare(proposal.labels(), labels, known, right, settled, lacking, proposal.right, outlines)
                return replace(found, error=found.error or accepted)
            except APFormerError as error:
                return Corrected((k, j, i), error=error, outlines=outlines)

        def done(found: Any, error: BaseException | None) -> None:
            if self._seen.get(node) != (key, None):
                return  # it was edited meanwhile, and is asked again
            if error is not None:
                found = Corrected((k, j, i), error=explain_error(error, None))
            self._seen[node] = key, found
            if node.GetScene() is not None:
                self._changed.emit(node)

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


def _no_proposal(segmentation_node: Any) -> NoProposalError:
    return NoProposalError(
        f"Nothing in {segmentation_node.GetName()} is outlined on some of its slices only.",
        "There is nothing to go by.",
        "Outline a structure on two to five slices of one plane, best its first, its last and one between, or segment "
        "the image with a model and correct that.",
    )


def _accepted(segmentation_node: Any, known: Sequence[Label]) -> InputError | None:
    """Why nothing is proposed anew, where somebody accepted a model's structure."""
    segmentation, ids = segmentation_node.GetSegmentation(), segment_ids(segmentation_node, known)
    names = [name for name, one in ids.items() if status_of(segmentation.GetSegment(one)) == Status.COMPLETED]
    if not names:
        return None
    return InputError(
        f"{' and '.join(names)} {'was' if len(names) == 1 else 'were'} accepted.",
        "What is accepted is not proposed anew.",
        "Flag what should be.",
    )


def _by_model(segmentation_node: Any) -> bool:
    """Whether a model made any of it."""
    return any(model_of(segment) is not None for segment in _segments(segmentation_node))


def _told(segmentation_node: Any) -> tuple[tuple[str, int], ...]:
    """What is known of segments besides their voxels."""
    return tuple((segment.GetName(), int(status_of(segment))) for segment in _segments(segmentation_node))


def _segments(segmentation_node: Any) -> list[Any]:
    segmentation = segmentation_node.GetSegmentation()
    return [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
