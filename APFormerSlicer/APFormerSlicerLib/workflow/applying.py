"""One press of *Apply to the rest*: what is handed to the worker, and its result on the scene, one step of undo.

Two things may follow at once. A model learns what was corrected of its proposal, and proposes the rest anew; and the
slices between those where a structure of the user's own was outlined are proposed. Each is a sheet of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from apformer.bundles import Label
from apformer.errors import InputError
from apformer.following import Plane
from apformer.following.corrections import only
from apformer.following.drawn_slices import DrawnSlices
from apformer.jobs.arrays import IMAGE, part_fields
from apformer.part import Part

from ..scene import Provenance, Result, set_status, status_of, take_pieces, to_volume, write_result
from ..scene.edits import SegmentEditor
from ..scene.label_maps import stamp
from ..scene.provenance import FOLLOWED, OUTLINED, of_node, of_segment
from ..scene.results import write_outlined
from ..scene.segments import segment_ids
from .aside import Work
from .cards import Card
from .correcting import Correcting
from .doubts import read_doubt, set_doubt
from .hosts import Worker
from .kept import read_part
from .marks import marked, set_marked
from .meanwhile import Meanwhile, changed
from .outlining import Outlines, Outlining, Own, Proposed
from .parcel import not_handed_over, volume_fields
from .places import set_places
from .placing import read_result
from .preview import Followed, Pending, Sheet
from .proposals import Proposal, Proposals, attributes
from .runs import Run
from .tally import prime_counts

SECONDS = 8.0  # for what a model learns; the worker knows the time that outlines take
MODEL = "model"  # the folder of what learned, beside the arrays
AXES = ("k", "j", "i")
_NOW = "now.npy"


@dataclass(eq=False)
class Press:
    """What was asked for, and what was handed over.

    Attributes:
        proposal, card: what was corrected, and the model that made it; None where none is to learn.
        stamp: when it had changed last. before: the file with the model's segments as they were, and where it lies.
        outlined: the user's own structures as they were, with the slices that were outlined; None without any.
        meanwhile: what was drawn since, up to the stamp `merged_at`, by the sheet's output.
    """

    node: Any
    volume_node: Any
    proposal: Proposal | None
    card: Card | None
    device: str
    right: frozenset[Plane] = frozenset()
    stamp: tuple[int | None, tuple[int, ...]] | None = None
    before: tuple[Path, Mapping[str, Any]] | None = None
    outlined: Proposed | None = None
    merged_at: object = None
    meanwhile: dict[str, Meanwhile] = field(default_factory=dict)


class Applying:
    """Presses of one scene."""

    def __init__(
        self,
        worker: Worker,
        correcting: Correcting,
        proposals: Proposals,
        outlining: Outlining,
        editor: Callable[[], SegmentEditor | None],
    ) -> None:
        self._worker, self._correcting, self._proposals = worker, correcting, proposals
        self._outlining, self._editor = outlining, editor

    # ---------------------------------------------------------------- to the worker

    def begin(self, run: Run, press: Press) -> None:
        """Its turn: hand over the image and the segments as they are now.

        Raises:
            APFormerError: it cannot be begun.
        """
        node, volume_node = press.node, press.volume_node
        _, present = self._correcting.of(node)
        if press.card is not None and present is not press.proposal:
            raise InputError(
                f"{node.GetName()} was segmented or undone meanwhile.",
                "The corrections were of another proposal; nothing was changed.",
                "Correct this one, then apply again.",
            )
        known = present.kept.labels if isinstance(present, Proposal) else ()
        volume, name = to_volume(volume_node), volume_node.GetName()
        own = self._outlining.take(node, volume_node, known)
        pieces = None if press.card is None else take_pieces(node, volume_node, known)
        press.right = marked(node)
        seen = self._correcting.corrected(node)
        axis = 0 if seen is None else seen.axis
        try:
            folder = self._worker.folder()
        except OSError as error:
            raise not_handed_over(error) from error

        def write() -> dict[str, Any]:
            try:
                outlines = own.look()
                fields = _outlined_fields(press, own, outlines, folder)
                if press.card is not None and press.proposal is not None and pieces is not None:
                    labels = own.over(pieces.compose(), known, outlines.partial)
                    more = _corrected_fields(press, press.card, press.proposal, labels, axis, folder)
                    fields = {**fields, **more, "outputs": fields["outputs"] | more["outputs"]}
                return {**fields, "device": press.device, "array": volume_fields(folder / IMAGE, volume, name)}
            except OSError as error:
                raise not_handed_over(error) from error

        def stamped() -> object:
            press.stamp = _stamp(node, volume_node)
            return press.stamp

        run.hand_over(write, folder, stamped)

    # ---------------------------------------------------------------- onto the scene

    def prepare(self, press: Press, data: Mapping[str, Any]) -> Work | None:
        """What finds out what was drawn while the network learned; None where nothing was that is not known.

        Raises:
            InputError: the segments cannot be taken from the scene any more.
        """
        node, present, told = press.node, _stamp(press.node, press.volume_node), data.get("outlined", {})
        if present in (press.stamp, press.merged_at) or press.stamp is None or present[0] != press.stamp[0]:
            return None
        name, volume_node, proposal, sent = node.GetName(), press.volume_node, press.proposal, press.outlined
        known = () if proposal is None or not data.get("gained") else proposal.kept.labels
        own = () if sent is None or not told.get("gained") else sent.labels
        models, drawn = (take_pieces(node, volume_node, labels) if labels else None for labels in (known, own))

        def look() -> None:
            press.merged_at, press.meanwhile = present, {}
            paths = data["paths"]
            if models is not None and press.before is not None:
                before = _only(read_part(*press.before), [label.value for label in known]).whole()
                result = read_part(paths["labels"], data["parts"]["labels"]).whole()
                certain = read_part(paths["certain"], data["certain"]).whole() > 0
                press.meanwhile["labels"] = Meanwhile.of(name, models.compose(), before, result, certain)
            if drawn is not None and sent is not None:
                now, before = drawn.compose(), sent.part.whole()
                result = read_part(paths["outlined"], told["part"]).whole()
                press.meanwhile["outlined"] = Meanwhile.of(name, now, before, result, sent.learned_from(now))

        return look

    def finish(self, run: Run, press: Press, data: Mapping[str, Any]) -> tuple[Followed, Pending | None]:
        """The result onto the scene, around what was drawn meanwhile; None where there is nothing new.

        Raises:
            InputError: the image was changed, or the files cannot be read; nothing is changed then.
        """
        followed, told, editor = Followed.from_data(data), data.get("outlined", {}), self._editor()
        writers: list[Callable[[SegmentEditor | None], tuple[Sheet, bool]]] = []  # all files are read before one writes
        if data.get("gained"):
            writers.append(self._corrected_writer(run, press, data))
        if told.get("gained"):
            writers.append(self._outlined_writer(press, told, Path(data["paths"]["outlined"])))
        if not writers:
            return followed, None
        if _stamp(press.node, press.volume_node) not in (press.stamp, press.merged_at):
            raise changed(f"{press.node.GetName()} or {press.volume_node.GetName()}")
        sheets, undoable = [], False
        for write in writers:
            sheet, saved = write(editor)
            sheets.append(sheet)
            undoable, editor = undoable or saved, None  # what was there before is saved once
        followed = replace(followed, undoable=undoable)
        model = Path(data["paths"][MODEL]) if data.get("gained") else None
        return followed, Pending(followed, tuple(sheets), stamp(press.node), model)

    def _corrected_writer(
        self, run: Run, press: Press, data: Mapping[str, Any]
    ) -> Callable[[SegmentEditor | None], tuple[Sheet, bool]]:
        node, volume_node, earlier, before = press.node, press.volume_node, press.proposal, press.before
        assert earlier is not None and before is not None  # the job had them
        result, kept = read_result(_without_outlined(data), {FOLLOWED: str(data.get("followed", ""))})
        labels, values = earlier.kept.labels, [label.value for label in earlier.kept.labels]
        certain = Path(data["paths"]["certain"]), dict(data["certain"])
        shown = {name: path for name, path in kept.paths.items() if name in kept.places}  # without what was certain
        proposal = Proposal(replace(kept, paths=shown), result.provenance.date, certain, press.right)
        drawn = press.meanwhile.get("labels")
        on_scene = result if drawn is None else replace(result, array=drawn.after)

        def write(editor: SegmentEditor | None) -> tuple[Sheet, bool]:
            notes, made_by, statuses = attributes(node), of_node(node), _statuses(node, labels)
            written = write_result(volume_node, on_scene, node, editor)
            set_places(node, data.get("places"))
            set_doubt(node, read_doubt(data.get("doubt")))
            set_marked(node, press.right)
            if drawn is None:
                prime_counts(node, written.segment_ids, data.get("structures", {}))
            run.keep_folder()
            self._proposals.add(node, proposal, notes)
            self._worker.aside(lambda: (kept.folder / IMAGE).unlink(missing_ok=True), lambda *_: None)

            def put_back(part: Part, editor: SegmentEditor | None) -> None:
                assert made_by is not None  # there was a proposal
                back = write_result(volume_node, Result(part, labels, made_by), node, editor)
                for name, status in statuses.items():
                    set_status(node.GetSegmentation().GetSegment(back.segment_ids[name]), status)
                self._proposals.of(node)  # the segments are of the earlier one: what is told of it comes back too

            return Sheet(
                labels,
                lambda: _only(read_part(*before), values) if drawn is None else drawn.now,
                lambda: proposal.kept.read("labels") if drawn is None else drawn.after,
                lambda: self._is_of(node, proposal),
                put_back,
            ), written.undoable

        return write

    def _outlined_writer(
        self, press: Press, told: Mapping[str, Any], path: Path
    ) -> Callable[[SegmentEditor | None], tuple[Sheet, bool]]:
        node, volume_node, sent = press.node, press.volume_node, press.outlined
        assert sent is not None  # the job had it
        labels, result = sent.labels, read_part(path, told["part"], mapped=True)
        drawn = press.meanwhile.get("outlined") or Meanwhile(sent.part, result)
        made_by = {label.name: _made_by(told, sent.slices[label.name]) for label in labels}
        date = made_by[labels[0].name].date

        def write(editor: SegmentEditor | None) -> tuple[Sheet, bool]:
            earlier = {name: of_segment(segment) for name, segment in _segments(node, labels).items()}
            ids, undoable = write_outlined(volume_node, drawn.after, labels, node, made_by, editor)
            if drawn.after is result:
                prime_counts(node, ids, told.get("structures", {}))
            self._outlining.add(node, date, Proposed(labels, sent.slices, result))
            return Sheet(
                labels,
                lambda: drawn.now,
                lambda: drawn.after,
                lambda: _written_at(node, labels) == {date},
                lambda part, editor: write_outlined(volume_node, part, labels, node, earlier, editor),
            ), undoable

        return write

    def _is_of(self, node: Any, proposal: Proposal) -> bool:
        try:
            return self._proposals.of(node) is proposal
        except InputError:  # segmented anew, or its volume was removed
            return False


def _outlined_fields(press: Press, own: Own, outlines: Outlines, folder: Path) -> dict[str, Any]:
    """Write the user's own structures, those that can follow, and give the fields that tell of them.

    Raises:
        InputError: there are none, and no model is to learn either.
    """
    if not outlines.slices:
        press.outlined = None
        if press.card is None:
            raise next(iter((*outlines.refused, *outlines.idle)), _GONE)
        return {"outputs": {}}
    slices = outlines.slices
    labels = tuple(label for label in own.labels if label.name in slices)
    press.outlined = Proposed(labels, slices, Part.of(own.compose(slices)))
    of_value = {str(label.value): label.name for label in labels}
    outlined = {
        **part_fields(folder / "outlined-now.npy", press.outlined.part),
        "names": of_value,
        "planes": {value: AXES[slices[name].axis] for value, name in of_value.items()},
        "slices": {value: list(slices[name].numbers) for value, name in of_value.items()},
    }
    return {"outlined": outlined, "outputs": {"outlined": str(folder / "outlined.npy")}}


def _corrected_fields(
    press: Press, card: Card, proposal: Proposal, labels: np.ndarray, axis: int, folder: Path
) -> dict[str, Any]:
    """Write what a model's segments are now, and give the fields of what it is to learn."""
    path, place = proposal.kept.proposal
    now = part_fields(folder / _NOW, Part.of(labels))
    press.before = folder / _NOW, now
    fields = {
        "model": str(card.directory),
        "proposal": {"file": str(path), **place},
        "labels": now,
        "right": {name: sorted(p.number for p in press.right if AXES[p.axis] == name) for name in AXES},
        "plane": AXES[axis],
        "seconds": SECONDS,
        "outputs": {
            MODEL: str(folder / MODEL),
            **{name: str(folder / f"{name}.npy") for name in ("labels", "uncertainty", "certain")},
        },
    }
    certain = proposal.settled(press.right)
    if certain is not None:
        fields["certain"] = part_fields(folder / "before.npy", Part.of(certain.astype(np.uint8)))
    return fields


_GONE = InputError(
    "What was outlined is not there any more.", "There is nothing to go by.", "Outline a structure, then apply again."
)


def _without_outlined(data: Mapping[str, Any]) -> dict[str, Any]:
    paths = {name: path for name, path in data["paths"].items() if name != "outlined"}
    return {**data, "paths": paths}


def _made_by(told: Mapping[str, Any], where: DrawnSlices) -> Provenance:
    text = f"between {len(where.numbers)} outlined slices"
    return Provenance.from_report(
        told.get("provenance", {}), {FOLLOWED: text, OUTLINED: {AXES[where.axis]: list(where.numbers)}}
    )


def _only(part: Part, values: list[int]) -> Part:
    return Part(only(part.array, values), part.start_kji, part.shape_kji)


def _stamp(segmentation_node: Any, volume_node: Any) -> tuple[int | None, tuple[int, ...]]:
    """Changes whenever voxels of the image, which come first, or of a segment do."""
    image = volume_node.GetImageData()
    return None if image is None else int(image.GetMTime()), stamp(segmentation_node)


def _segments(segmentation_node: Any, labels: tuple[Label, ...]) -> dict[str, Any]:
    """By label name, those that are there."""
    segmentation = segmentation_node.GetSegmentation()
    return {name: segmentation.GetSegment(one) for name, one in segment_ids(segmentation_node, labels).items()}


def _statuses(segmentation_node: Any, labels: tuple[Label, ...]) -> dict[str, Any]:
    """Label name -> status of its segment."""
    return {name: status_of(segment) for name, segment in _segments(segmentation_node, labels).items()}


def _written_at(segmentation_node: Any, labels: tuple[Label, ...]) -> set[str | None]:
    found = (of_segment(segment) for segment in _segments(segmentation_node, labels).values())
    return {None if made_by is None else made_by.date for made_by in found}
