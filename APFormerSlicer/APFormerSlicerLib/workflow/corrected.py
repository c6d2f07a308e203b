"""What a person has corrected of a proposal, slice by slice along each axis: for a strip, a button and a job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from apformer.bundles import Label
from apformer.errors import APFormerError, InputError
from apformer.following import Corrections, Plane

from .wording import sentence

Slices = tuple[frozenset[int], frozenset[int], frozenset[int]]
"""Numbers of slices along k, j and i of the array."""
NONE: Slices = (frozenset(), frozenset(), frozenset())


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
        text: what will be learned from, such as "2 corrected slices and strokes on 1 slice"; "" for nothing.
        error: why the rest cannot be proposed anew; None where it can.
    """

    shape_kji: tuple[int, int, int]
    drawn: Slices = NONE
    right: Slices = NONE
    proposed: Slices = NONE
    axis: int = 0
    text: str = ""
    error: APFormerError | None = None

    @property
    def reason(self) -> str:
        """`error` in words; "" where there is none."""
        return "" if self.error is None else sentence(self.error)

    def kind(self, plane: Plane) -> str:
        """ "right", "drawn", "proposed" or "" of a slice; what is more certain comes first."""
        for kind in ("right", "drawn", "proposed"):
            if plane.number in getattr(self, kind)[plane.axis]:
                return kind
        return ""


def compare(
    proposal: np.ndarray,
    labels: np.ndarray,
    known: Sequence[Label],
    right: Collection[Plane],
    certain: np.ndarray | None = None,
    lacking: Collection[str] = (),
    applied: Collection[Plane] = (),
) -> Corrected:
    """Compare label maps (k, j, i); not for the main thread.

    Args:
        known: the model's labels.
        right: slices that were marked as right.
        certain: bool (k, j, i), what was settled for an earlier proposal.
        lacking: names of labels without a segment.
        applied: slices that had been marked as right before the proposal.
    """
    k, j, i = proposal.shape
    settled = proposal != labels
    is_new = bool(settled.any()) or set(right) != set(applied)
    if certain is not None:
        settled |= certain
    for across, number in right:
        settled[(slice(None),) * across + (number,)] = False
    drawn, filled = _slices(settled), _slices(labels > 0)
    marked = _marked(right)
    proposed = tuple(filled[axis] - drawn[axis] - marked[axis] for axis in range(3))
    axis = min(range(3), key=lambda axis: len(drawn[axis]))
    text, refused = "", None
    try:
        _refuse_lacking(proposal, known, lacking)
        values = [label.value for label in known]
        text = str(Corrections.of(proposal, labels, values, right=right, certain=certain, axis=axis))
        if not is_new:
            raise InputError(
                "Nothing was corrected since the proposal.",
                "All corrections were applied already.",
                "Correct another slice, or mark one as right, and try again.",
            )
    except APFormerError as error:
        refused = error
    return Corrected((k, j, i), drawn, marked, (proposed[0], proposed[1], proposed[2]), axis, text, refused)


def _refuse_lacking(proposal: np.ndarray, known: Sequence[Label], lacking: Collection[str]) -> None:
    """InputError where a structure that was proposed has no segment: removed and renamed ones look the same."""
    gone = [label.name for label in known if label.name in lacking and (proposal == label.value).any()]
    if gone:
        raise InputError(
            f"There is no segment named {' or '.join(gone)} any more, which the model had proposed.",
            "It is not known whether it was renamed, or whether there is none in this patient.",
            "Give it its name back, or add an empty segment of that name.",
        )


def _slices(flags: np.ndarray) -> Slices:
    k, j, i = (frozenset(np.flatnonzero(flags.any(axis=others)).tolist()) for others in ((1, 2), (0, 2), (0, 1)))
    return k, j, i


def _marked(right: Collection[Plane]) -> Slices:
    k, j, i = (frozenset(plane.number for plane in right if plane.axis == axis) for axis in range(3))
    return k, j, i
