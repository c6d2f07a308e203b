"""Labels as segments, by name: a segment with a label's name is replaced, a missing one is added, others stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import slicer
from apformer.bundles.labels import HIGHEST_LABEL, Label
from apformer.errors import InputError, OutputError
from apformer.names import find, plain
from apformer.part import Part

from .geometry import ijk_to_local, local_to_local, one_update
from .images import oriented_image
from .volumes import first_ijk, shape_kji


def segment_ids(segmentation_node: Any, labels: Iterable[Label]) -> dict[str, str]:
    """Label name -> segment ID, for those labels that have a segment of their name, as `apformer.names` tells what is
    the same.

    Of several segments of one name the first counts, of those that are written as the label is, where there are any.
    """
    segmentation = segmentation_node.GetSegmentation()
    # By hand: `GetSegmentIdBySegmentName` overlooks case, and of segments that differ in nothing else takes any.
    written: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for number in range(segmentation.GetNumberOfSegments()):
        name, segment_id = segmentation.GetNthSegment(number).GetName(), segmentation.GetNthSegmentID(number)
        written.setdefault(name, segment_id)
        by_name.setdefault(plain(name), segment_id)
    found = {}
    for label in labels:
        segment_id = written.get(label.name) or by_name.get(plain(label.name))
        if segment_id:
            found[label.name] = segment_id
    return found


def add_segment(segmentation_node: Any, name: str) -> str:
    """An empty segment of that name, to be drawn by a person, and its ID; Slicer chooses the colour.

    Raises:
        InputError: there is one of that name, as `apformer.names` tells what is the same.
    """
    segmentation = segmentation_node.GetSegmentation()
    names = [segmentation.GetNthSegment(number).GetName() for number in range(segmentation.GetNumberOfSegments())]
    if find(name, names) is not None:
        raise InputError(
            f"{segmentation_node.GetName()} has a segment named {find(name, names)} already.",
            "Two of one name could not be told apart.",
            "Draw in that one, or give another name.",
        )
    segmentation_node.SetSourceRepresentationToBinaryLabelmap()
    return str(segmentation.AddEmptySegment("", name))


def write_segments(
    segmentation_node: Any,
    volume_node: Any,
    array: np.ndarray | Part,
    labels: Sequence[Label],
    describe: Callable[[Any, Label], None],
) -> dict[str, str]:
    """Write a label map as segments, and return label name -> segment ID.

    All labels, present in the map or not, share one layer on the grid of the volume, cut to where it is not empty. A
    new segment has its label's colour; one that is replaced keeps its ID, and its colour if the user chose it.
    3D surfaces that are shown are made anew for these segments.

    Args:
        array: (k, j, i) on the grid of `volume_node`, whole numbers, 0 is background; or what the worker cut out of it,
            of which no voxel is looked at.
        describe: called with each vtkSegment and its label, before a new segment can be seen in the scene.

    Raises:
        InputError: the array does not fit the volume, or has values that are no label; a transform is not linear.
        OutputError: the segmentation is kept as surfaces.
    """
    part = checked_part(array, volume_node, labels)
    check_target(segmentation_node, volume_node)
    layer = _layer(segmentation_node, volume_node, part)
    with one_update(segmentation_node):
        return _write(segmentation_node, layer, labels, describe)


def checked_part(array: np.ndarray | Part, volume_node: Any, labels: Sequence[Label]) -> Part:
    """What is not 0 of a label map; raises InputError when it is none of `labels` on the grid of the volume.

    A `Part` comes from the worker, which made it of these labels: shape and type are compared, voxels are not read.
    """
    is_part = isinstance(array, Part)
    shape, dtype = (array.shape_kji, array.array.dtype) if isinstance(array, Part) else (array.shape, array.dtype)
    if shape != shape_kji(volume_node):
        raise InputError(
            f"A label map of shape {shape} does not fit {volume_node.GetName()}, {shape_kji(volume_node)} (k, j, i).",
            "Its voxels would lie in the wrong place.",
            "Segment the volume again: it was changed or replaced since.",
        )
    if dtype.kind not in "bui" or (is_part and dtype != np.uint8):
        raise InputError(
            f"The label map has voxels of type {dtype}.",
            "Labels are whole numbers.",
            "Pass the label map itself, not a map of probabilities.",
        )
    if isinstance(array, Part):
        return array
    check_values(array, labels)
    return Part.of(array)


def check_values(array: np.ndarray, labels: Sequence[Label]) -> None:
    """Raises InputError when a label map, of whole numbers, has a value that is none of the labels'."""
    values = [0, *(label.value for label in labels)]
    known = np.isin(np.arange(HIGHEST_LABEL + 1), values)
    within = array.min(initial=0) >= 0 and array.max(initial=0) <= HIGHEST_LABEL
    if within and known[array.astype(np.uint8, copy=False)].all():  # seconds faster than np.unique on a CT
        return
    unknown = sorted(set(np.unique(array).tolist()) - set(values))
    raise InputError(
        f"The label map has the values {', '.join(map(str, unknown))}, which no label has.",
        "It is not known what they are.",
        "Pass the labels of the model that made the label map.",
    )


def check_target(segmentation_node: Any, volume_node: Any) -> None:
    """Raises OutputError when results cannot be written without changing what other segments are, and InputError when
    a transform that is not linear lies between the volume and the segmentation."""
    local_to_local(volume_node, segmentation_node)
    segmentation = segmentation_node.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() and source != binary_labelmap():
        raise OutputError(
            f"{segmentation_node.GetName()} is kept as {source.lower()}.",
            "Writing voxels into it would convert its other segments, with losses.",
            "Choose another segmentation, or convert this one (Segmentations module, Representations, Binary labelmap, "
            "Make source).",
        )


def _layer(segmentation_node: Any, volume_node: Any, part: Part) -> Any:
    """The image that all segments share: uint8, as labels are at most 255."""
    k, j, i = part.start_kji
    i0, j0, k0 = first_ijk(volume_node)
    matrix = local_to_local(volume_node, segmentation_node) @ ijk_to_local(volume_node)
    return oriented_image(part.array.astype(np.uint8, copy=False), matrix, (i0 + i, j0 + j, k0 + k))


def _write(
    segmentation_node: Any, layer: Any, labels: Sequence[Label], describe: Callable[[Any, Label], None]
) -> dict[str, str]:
    segmentation = segmentation_node.GetSegmentation()
    segmentation_node.SetSourceRepresentationToBinaryLabelmap()
    replaced = segment_ids(segmentation_node, labels)
    _leave_layers(segmentation_node, list(replaced.values()))
    for label in labels:
        is_new = label.name not in replaced
        segment = _new_segment(label) if is_new else segmentation.GetSegment(replaced[label.name])
        segment.SetLabelValue(label.value)
        segment.AddRepresentation(binary_labelmap(), layer)
        if segment.GetColorAutoGenerated():  # not chosen by the user
            segment.SetColor([part / 255 for part in label.color])
        describe(segment, label)
        if is_new:
            segmentation.AddSegment(segment)  # which also makes the surface, where others have one
    if replaced:  # with no IDs it would convert all segments
        slicer.vtkSlicerSegmentationsModuleLogic.ReconvertAllRepresentations(segmentation_node, list(replaced.values()))
    written = segment_ids(segmentation_node, labels)
    for segment_id in written.values():  # as SetBinaryLabelmapToSegment does, for the views
        segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified, segment_id)
        segmentation.InvokeEvent(slicer.vtkSegmentation.RepresentationModified, segment_id)
    return written


def _leave_layers(segmentation_node: Any, leaving: list[str]) -> None:
    """Clear segments out of the layers that they share with segments that stay."""
    segmentation = segmentation_node.GetSegmentation()
    for segment_id in leaving:
        number = segmentation.GetLayerIndex(segment_id)
        sharing = segmentation.GetSegmentIDsForLayer(number) if number >= 0 else ()
        if set(sharing) - set(leaving):
            slicer.vtkSlicerSegmentationsModuleLogic.ClearSegment(segmentation_node, segment_id)


def _new_segment(label: Label) -> Any:
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetNameAutoGenerated(False)  # the name is what the next result finds the segment by
    return segment


def binary_labelmap() -> str:
    """The name of the representation by voxels."""
    return str(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName())
