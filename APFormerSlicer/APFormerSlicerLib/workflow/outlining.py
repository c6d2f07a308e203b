"""Structures of the user's own, which no model knows: which of their slices were outlined, and what that means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from apformer.bundles.labels import HIGHEST_LABEL, Label
from apformer.errors import APFormerError, InputError
from apformer.following.drawn_slices import DrawnSlices, Earlier, NothingBetweenError, drawn_slices
from apformer.part import Part

from ..scene import Pieces, Status, status_of, take_pieces
from ..scene.label_table import labels_besides
from ..scene.provenance import model_of, of_segment
from ..scene.segments import segment_ids
from ..scene.slices import planes_of
from .scene_watch import SceneWatch
from .wording import sentence

MOST = 11  # proposals of a segmentation: as many as the Segment Editor can undo, and the present one
Slices = tuple[frozenset[int], frozenset[int], frozenset[int]]
"""Numbers of slices along k, j and i of the array."""
NONE: Slices = (frozenset(), frozenset(), frozenset())


@dataclass(frozen=True)
class Outlines:
    """What of a segmentation's own structures counts now.

    Attributes:
        slices: by name, of those whose slices between can follow.
        planes: what slices across k, j and i are, such as "axial".
        refused: why others cannot follow. idle: why others need nothing.
        drawn: outlined slices; proposed: others, with what was proposed between them.
        partial: names of structures that are outlined on some slices, whether they can follow or not, or were.
    """

    slices: Mapping[str, DrawnSlices] = field(default_factory=dict)
    planes: Sequence[str] = ("axial", "coronal", "sagittal")
    refused: tuple[APFormerError, ...] = ()
    idle: tuple[APFormerError, ...] = ()
    drawn: Slices = NONE
    proposed: Slices = NONE
    partial: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """What will be done: "Tumour: outlined on 3 axial slices; the slices between follow"; "" for nothing."""
        told = [
            f"{name}: outlined on {len(where.numbers)} {self.planes[where.axis]} slices"
            for name, where in self.slices.items()
        ]
        return f"{', '.join(told)}; the slices between follow" if told else ""

    @property
    def says(self) -> str:
        """The same as a sentence, and why others cannot follow; "" for neither."""
        return " ".join([f"{self.text}."] * bool(self.slices) + [sentence(error) for error in self.refused])


@dataclass(frozen=True, eq=False)
class Proposed:
    """What was proposed between outlines: `part`, a label map of `labels`; `slices`, the outlined ones by name."""

    labels: tuple[Label, ...]
    slices: Mapping[str, DrawnSlices]
    part: Part

    def earlier(self, name: str) -> Earlier | None:
        """Of that structure; None where it was not among them."""
        value = next((label.value for label in self.labels if label.name == name), None)
        return None if value is None else Earlier(self.slices[name], self.part.whole() == value)

    def learned_from(self, now: np.ndarray) -> np.ndarray:
        """Bool (k, j, i): where these structures were outlined, or are `now`, a label map, on the same slices."""
        found, before = np.zeros(now.shape, bool), self.part.whole()
        for label in self.labels:
            found |= self.slices[label.name].of((before == label.value) | (now == label.value))
        return found


@dataclass(frozen=True, eq=False)
class Own:
    """A segmentation's own structures, taken from the scene; what follows touches no node, and is for other threads.

    Attributes:
        pieces: None where there are none.
        labels: of those that may follow: a person has drawn them, and not accepted them.
        proposed: by name, the proposal that a structure comes from.
        accepted: names.
    """

    pieces: Pieces | None
    labels: tuple[Label, ...]
    proposed: Mapping[str, Proposed]
    accepted: tuple[str, ...]
    planes: Sequence[str]

    def look(self) -> Outlines:
        """Find what was outlined."""
        slices: dict[str, DrawnSlices] = {}
        refused: list[APFormerError] = []
        idle: list[APFormerError] = [_accepted(name) for name in self.accepted]
        strips: list[tuple[Slices, Slices]] = []  # drawn, proposed
        whole: set[str] = set()
        names, taken = {label.name for label in self.labels}, np.zeros((), bool)  # by those that can follow
        for label, mask in self.pieces.masks() if self.pieces is not None else ():
            if label.name not in names:
                continue
            found = self.proposed.get(label.name)
            earlier = found.earlier(label.name) if found is not None and found.part.shape_kji == mask.shape else None
            where = None if earlier is None else earlier.slices
            try:
                where = drawn_slices(mask, label.name, earlier)
                if (taken & mask).any():
                    raise _overlaps(label.name)
                slices[label.name] = where
                taken = taken | mask
            except NothingBetweenError as error:
                idle.append(error)
                whole |= {label.name} - self.proposed.keys()
            except InputError as error:
                refused.append(error)
            if where is not None:
                strips.append(_strip(mask, where, earlier is not None))
        drawn, proposed = (_union(strip[kind] for strip in strips) for kind in (0, 1))
        partial = frozenset((names | self.proposed.keys()) - whole)
        return Outlines(slices, self.planes, tuple(refused), tuple(idle), drawn, proposed, partial)

    def compose(self, names: Collection[str]) -> np.ndarray:
        """The label map of these structures: uint8 (k, j, i)."""
        assert self.pieces is not None
        wanted = tuple(piece for piece in self.pieces.pieces if piece.label.name in names)
        return replace(self.pieces, pieces=wanted).compose()

    def over(self, labels: np.ndarray, known: Sequence[Label], names: Collection[str]) -> np.ndarray:
        """A model's label map, with a value that is none of `known` where its structures are not and `names` are: most
        editors erase what is drawn over, which tells nothing of the model."""
        values = {label.value for label in known}
        other = next((value for value in range(HIGHEST_LABEL, 0, -1) if value not in values), 0)
        for label, mask in self.pieces.masks() if self.pieces is not None else ():
            if label.name in names:
                labels[mask & (labels == 0)] = other
        return labels


class Outlining:
    """The own structures of one scene's segmentations."""

    def __init__(self, watch: SceneWatch) -> None:
        self._proposed: dict[Any, dict[str, Proposed]] = {}  # by segmentation, then by date
        watch.removed.connect(lambda node: self._proposed.pop(node, None))
        watch.closing.connect(self._proposed.clear)

    def take(self, segmentation_node: Any, volume_node: Any, known: Sequence[Label]) -> Own:
        """What is none of `known`, a model's labels. Raises InputError as `take_pieces`."""
        labels = labels_besides(segmentation_node, known)
        pieces = take_pieces(segmentation_node, volume_node, labels) if labels else None
        ids, segmentation = segment_ids(segmentation_node, labels), segmentation_node.GetSegmentation()
        segments = {label: segmentation.GetSegment(ids[label.name]) for label in labels}
        drawn = {label: segment for label, segment in segments.items() if model_of(segment) is None}
        accepted = [label.name for label, segment in drawn.items() if status_of(segment) == Status.COMPLETED]
        proposed = {label.name: self._of(segmentation_node, segment) for label, segment in drawn.items()}
        return Own(
            pieces,
            tuple(label for label in drawn if label.name not in accepted),
            {name: found for name, found in proposed.items() if found is not None},
            tuple(accepted),
            planes_of(volume_node),
        )

    def add(self, segmentation_node: Any, date: str, proposed: Proposed) -> None:
        """It is on the scene, in segments that were written at `date`."""
        told = self._proposed.setdefault(segmentation_node, {})
        told[date] = proposed
        for lost in list(told)[:-MOST]:
            del told[lost]

    def _of(self, segmentation_node: Any, segment: Any) -> Proposed | None:
        """What a segment comes from; Undo and Redo bring back what is written on it."""
        made_by = of_segment(segment)
        return None if made_by is None else self._proposed.get(segmentation_node, {}).get(made_by.date)


def as_slices(axes: Iterable[Iterable[int]]) -> Slices:
    k, j, i = (frozenset(numbers) for numbers in axes)
    return k, j, i


def filled_slices(flags: np.ndarray) -> Slices:
    """Those of bool (k, j, i) where any is set."""
    return as_slices(np.flatnonzero(flags.any(axis=others)).tolist() for others in ((1, 2), (0, 2), (0, 1)))


def _union(several: Iterable[Slices]) -> Slices:
    return as_slices(frozenset().union(*axes) for axes in zip(NONE, *several, strict=True))


def _strip(mask: np.ndarray, where: DrawnSlices, followed: bool) -> tuple[Slices, Slices]:
    """Slices that were drawn on, and that were proposed; slices across these are no one's drawing."""
    drawn = as_slices(where.numbers if axis == where.axis else () for axis in range(3))
    if not followed:
        return drawn, NONE
    return drawn, as_slices(filled - own for filled, own in zip(filled_slices(mask), drawn, strict=True))


def _overlaps(name: str) -> InputError:
    return InputError(
        f"{name} overlaps another structure that is outlined.",
        "Of the slices between, it could not be told whose they are; it is left out for now.",
        "Subtract one from the other (Segment Editor, Logical operators), then apply again.",
    )


def _accepted(name: str) -> InputError:
    return InputError(
        f"{name} was accepted.",
        "What is accepted is not proposed anew.",
        "Flag it if more shall follow.",
    )
