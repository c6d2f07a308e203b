"""An image and its corrected segmentation on their way into the data set: what is sent to the worker of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apformer.bundles import Label
from apformer.errors import InputError, OutputError
from apformer.jobs.arrays import IMAGE, image_fields, part_fields
from apformer.names import find, twice
from apformer.part import Part
from apformer.volume import Volume

from ..scene import Status, check_labels, status_of, take_pieces, to_volume
from ..scene.label_maps import stamp
from ..scene.provenance import model_of
from .kept import Kept
from .opening import opened_case
from .patients import patient_of
from .reviewing import LONGEST_COMMENT, comment_of

if TYPE_CHECKING:  # the rooms of data sets are loaded when one is used
    from apformer.datasets import SiteDataset

_LABELS, _PROPOSAL = "labels.npy", "proposal.npy"


NOT_THERE, NOT_OUTLINED = "not there", "not outlined"  # what structures without a segment are


@dataclass(frozen=True)
class Parcel:
    """What is to be stored, checked as far as it can be without looking at voxels.

    Attributes:
        volume: a view of the node's memory.
        identity: the patient's. opened: the case that the image was opened from.
    """

    dataset: SiteDataset
    volume_node: Any
    segmentation_node: Any
    volume: Volume
    identity: str | None
    opened: str | None

    @staticmethod
    def of(dataset: SiteDataset, volume_node: Any, segmentation_node: Any, patient: str | None) -> Parcel:
        """Raises InputError when it cannot be stored."""
        volume = _placed(to_volume(volume_node))
        opened = opened_case(volume_node, dataset.root)
        identity = (patient or "").strip() or patient_of(volume_node)
        if identity is None and opened is None:
            raise InputError(
                f"It is not known of which patient {volume_node.GetName()} is.",
                "Cases are divided by patient for training and validation.",
                "Give the patient's ID; it is kept only as a pseudonym.",
            )
        _refuse_twins(segmentation_node, dataset.labels)
        check_labels(segmentation_node, volume_node, dataset.labels)
        return Parcel(dataset, volume_node, segmentation_node, volume, identity, opened)

    @property
    def _table(self) -> tuple[Label, ...]:
        """The labels that segments can be, one of voxels that nobody knows among them."""
        from apformer.datasets.table import with_unknown

        return with_unknown(self.dataset.labels)

    @property
    def lacking(self) -> list[str]:
        """Structures of the table that have no segment, not even an empty one: which would say that there is none."""
        matched = _matched(_segments(self.segmentation_node), self.dataset.labels)
        return [label.name for label in self.dataset.labels if label.name not in matched]

    @property
    def name(self) -> str:
        return str(self.volume_node.GetName())

    @property
    def notes(self) -> list[str]:
        """What is told of the image that is stored, such as what its file leaves open, and of segments that are not."""
        image = list(self.volume.notes) if self.opened is None else []  # a case's own file is as we wrote it
        segments = _segments(self.segmentation_node)
        matched = set(_matched(segments, self._table).values())
        left = [name for name in segments if name not in matched]
        return [*image, *([f"Not in the label table, so not stored: {', '.join(left)}."] if left else [])]

    def stamp(self) -> tuple[int, tuple[int, ...]]:
        """Changes whenever voxels of the image or of a segment do."""
        return int(self.volume_node.GetImageData().GetMTime()), stamp(self.segmentation_node)

    def writer(
        self,
        folder: Path,
        kept: Kept | None,
        *,
        status: str | None,
        who: str,
        comment: str | None,
        correct: bool,
        others: str,
    ) -> Callable[[], dict[str, Any]]:
        """What puts the voxels into `folder` and gives the fields of the `store` job, in a thread of its own; the nodes
        are read now, and the memory of their voxels stays."""
        request = {**self._request(status, who, comment, correct), "outlined": self._outlined(others)}
        proposal = self._proposal(kept)
        pieces = take_pieces(self.segmentation_node, self.volume_node, self._table)
        volume, name, opened = self.volume, self.name, self.opened

        def write() -> dict[str, Any]:
            part = Part.of(pieces.compose())
            try:
                fields = {**request, "labels": part_fields(folder / _LABELS, part)}
                if proposal is not None:  # its file goes when the volume is segmented again
                    copy = shutil.copy(proposal["labels"]["file"], folder / _PROPOSAL)
                    fields["proposal"] = {**proposal, "labels": {**proposal["labels"], "file": str(copy)}}
                if opened is None:
                    fields["array"] = volume_fields(folder / IMAGE, volume, name)
            except OSError as error:
                raise not_handed_over(error) from error
            return fields

        return write

    def _request(self, status: str | None, who: str, comment: str | None, correct: bool) -> dict[str, Any]:
        """The fields that need no voxels."""
        segments, table = _segments(self.segmentation_node), self.dataset.labels
        said = dict.fromkeys(filter(None, map(comment_of, segments.values())))  # each remark once
        fields: dict[str, Any] = {
            "dataset": str(self.dataset.root),
            "names": {str(label.value): label.name for label in self._table},
            "status": status or _status([segments[name] for name in _matched(segments, table).values()]),
            "who": who or None,
            "comment": comment or "; ".join(said)[:LONGEST_COMMENT] or None,
        }
        if self.opened is not None:
            return {**fields, "case": self.opened}
        return {**fields, "patient": self.identity, "made_by": _made_by(segments), "correct": correct}

    def _outlined(self, others: str) -> list[str]:
        """Names of the structures that were outlined: those without a segment only when they are not there."""
        lacking = self.lacking if others == NOT_OUTLINED else []
        return [label.name for label in self.dataset.labels if label.name not in lacking]

    def _proposal(self, kept: Kept | None) -> dict[str, Any] | None:
        """What the model had proposed; None where that is not known, or of another image."""
        if kept is None or self.opened is not None or kept.shape_kji != self.volume.spatial_shape:
            return None
        path, place = kept.proposal
        names = {str(label.value): label.name for label in kept.labels}
        return {"model": kept.model, "names": names, "labels": {"file": str(path), **place}}


def volume_fields(file: Path, volume: Volume, name: str) -> dict[str, Any]:
    """Write the voxels to `file` and return the field "array" of a request. Raises OSError."""
    picture = volume.source.kind == "picture"
    return image_fields(file, volume.array, volume.ijk_to_ras, volume.modality, picture=picture, name=name)


def not_handed_over(error: OSError) -> OutputError:
    """Why voxels could not be written for the worker."""
    return OutputError(
        f"The image could not be handed over ({error.strerror}).",
        "The folder for temporary files is full or cannot be written.",
        "Free some disk space, then try again.",
    )


def _placed(volume: Volume) -> Volume:
    """Pictures are kept as files that hold no geometry: their pixels lie where the engine reads them."""
    from apformer.files.picture import PICTURE_TO_RAS

    return replace(volume, ijk_to_ras=PICTURE_TO_RAS) if volume.source.kind == "picture" else volume


def _segments(segmentation_node: Any) -> dict[str, Any]:
    """Name -> segment; of several of one name, the first."""
    segmentation = segmentation_node.GetSegmentation()
    found: dict[str, Any] = {}
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        found.setdefault(segment.GetName(), segment)
    return found


def _refuse_twins(segmentation_node: Any, table: Sequence[Label]) -> None:
    """InputError when two segments have the name of one label: which of them is meant is not known."""
    segmentation = segmentation_node.GetSegmentation()
    names = [segmentation.GetNthSegment(number).GetName() for number in range(segmentation.GetNumberOfSegments())]
    known = [label.name for label in table]
    repeated = twice(name for name in names if find(name, known) is not None)
    if repeated is not None:
        raise InputError(
            f"{segmentation_node.GetName()} has two segments named {repeated[0]!r} and {repeated[1]!r}.",
            "Labels are matched by name, whatever its case and blanks, so these two would be one.",
            "Rename one of them, or merge them (Segment Editor, Logical operators, Add).",
        )


def _matched(segments: Mapping[str, Any], table: Sequence[Label]) -> dict[str, str]:
    """Label's name -> its segment's, as `apformer.names` tells what is the same."""
    matched: dict[str, str] = {}
    known = [label.name for label in table]
    for name in segments:
        label = find(name, known)
        if label is not None:
            matched.setdefault(label, name)
    return matched


def _status(segments: Sequence[Any]) -> str:
    from apformer.datasets import COMPLETED, FLAGGED, IN_PROGRESS

    statuses = [status_of(segment) for segment in segments]
    if Status.FLAGGED in statuses:
        return FLAGGED
    return COMPLETED if statuses and all(status == Status.COMPLETED for status in statuses) else IN_PROGRESS


def _made_by(segments: Mapping[str, Any]) -> str | None:
    found = [made_by for made_by in map(model_of, segments.values()) if made_by is not None]
    return f"{found[0].model} {found[0].model_version}" if found else None
