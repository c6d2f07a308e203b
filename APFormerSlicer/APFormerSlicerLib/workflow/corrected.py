"""What a person has corrected of a proposal, slice by slice along each axis: for a strip, a button and a job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from apformer.bundles import Label
from apformer.errors import APFormerError, InputError
from apformer.following import Corrections, Plane
from apformer.following.corrections import changed, only

from .outlining import NONE, Outlines, Slices, as_slices, filled_slices
from .wording import sentence


class NoProposalError(InputError):
    """A person alone made the segmentation."""


@dataclass(frozen=True)
class Corrected:
    """What counts since the proposal.

    Attributes:
        shape_kji: of the volume.
        drawn: slices with voxels that were painted or erased, now or before an earlier Apply; those of a slice that was
            marked do not count for the slices across it.
        right: slices that were marked as right.
        proposed: other slices with structures.
        axis: across the slices that were drawn on: 0, 1, 2 for k, j, i.
        text: what the model will learn from, such as "2 corrected slices and strokes on 1 slice"; "" for nothing.
        error: why the rest of the model's structures cannot be proposed anew; None where it can.
        outlines: what counts of structures that the model does not know.
    """

    shape_kji: tuple[int, int, int]
    drawn: Slices = NONE
    right: Slices = NONE
    proposed: Slices = NONE
    axis: int = 0
    text: str = ""
    error: APFormerError | None = None
    outlines: Outlines = field(default_factory=Outlines)

    @property
    def by_model(self) -> bool:
        """Whether a model proposed anything."""
        return not isinstance(self.error, NoProposalError)

    @property
    def refusal(self) -> APFormerError | None:
        """Why nothing can be applied; None where something can. What a user has just begun is told of first."""
        if self.error is None or self.outlines.slices:
            return None
        idle = () if self.by_model else self.outlines.idle
        return next(iter((*self.outlines.refused, *idle)), self.error)

    @property
    def reason(self) -> str:
        """`refusal` in words; "" where there is none."""
        return "" if self.refusal is None else sentence(self.refusal)

    @property
    def says(self) -> str:
        """What applying will do, and why some of the user's own structures stay; "" for nothing."""
        model = f"Learns from {self.text}." if self.text and self.error is None else ""
        return " ".join(filter(None, [model, self.outlines.says]))

    def kinds(self, axis: int) -> dict[str, frozenset[int]]:
        """Slices across an axis that are "right", "drawn" or "proposed", each in one of them: what is more certain
        comes first. Strokes count for the plane that they were drawn in; a drawn slice touches all across it."""
        right = self.right[axis]
        strokes = self.drawn[axis]
        drawn = (strokes if axis == self.axis else frozenset()) | self.outlines.drawn[axis]
        proposed = self.proposed[axis] | strokes | self.outlines.proposed[axis]
        return {"right": right, "drawn": drawn - right, "proposed": proposed - drawn - right}

    def kind(self, plane: Plane) -> str:
        """ "right", "drawn", "proposed" or "" of a slice."""
        kinds = self.kinds(plane.axis)
        return next((kind for kind, numbers in kinds.items() if plane.number in numbers), "")


def compare(
    proposal: np.ndarray,
    labels: np.ndarray,
    known: Sequence[Label],
    right: Collection[Plane],
    certain: np.ndarray | None = None,
    lacking: Collection[str] = (),
    applied: Collection[Plane] = (),
    outlines: Outlines | None = None,
) -> Corrected:
    """Compare label maps (k, j, i); not for the main thread.

    Args:
        labels: as it is now; values that are none of `known` are structures of the user's own.
        known: the model's labels.
        right: slices that were marked as right.
        certain: bool (k, j, i), what was settled for an earlier proposal.
        lacking: names of labels without a segment.
        applied: slices that had been marked as right before the proposal.
    """
    k, j, i = proposal.shape
    values = [label.value for label in known]
    settled = changed(proposal, labels, values)
    is_new = bool(settled.any()) or set(right) != set(applied)
    if certain is not None:
        settled |= certain
    for across, number in right:
        settled[(slice(None),) * across + (number,)] = False
    drawn, filled = filled_slices(settled), filled_slices(only(labels, values) > 0)
    marked = _marked(right)
    proposed = as_slices(filled[axis] - drawn[axis] - marked[axis] for axis in range(3))
    axis = min(range(3), key=lambda axis: len(drawn[axis]))
    text, refused = "", None
    try:
        _refuse_lacking(proposal, known, lacking)
        text = str(Corrections.of(proposal, labels, values, right=right, certain=certain, axis=axis))
        if not is_new:
            raise InputError(
                "Nothing was corrected since the proposal.",
                "All corrections were applied already.",
                "Correct another slice, or mark one as right, and try again.",
            )
    except APFormerError as error:
        refused = error
    return Corrected((k, j, i), drawn, marked, proposed, axis, text, refused, outlines or Outlines())


def _refuse_lacking(proposal: np.ndarray, known: Sequence[Label], lacking: Collection[str]) -> None:
    """InputError where a structure that was proposed has no segment: removed and renamed ones look the same."""
    gone = [label.name for label in known if label.name in lacking and (proposal == label.value).any()]
    if gone:
        raise InputError(
            f"There is no segment named {' or '.join(gone)} any more, which the model had proposed.",
            "It is not known whether it was renamed, or whether there is none in this patient.",
            "Give it its name back, or add an empty segment of that name.",
        )


def _marked(right: Collection[Plane]) -> Slices:
    return as_slices([plane.number for plane in right if plane.axis == axis] for axis in range(3))
