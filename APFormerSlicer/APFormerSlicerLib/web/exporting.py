"""What users download: the segmentation in three formats, and models."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from apformer.errors import InputError, OutputError

from ..scene import to_label_map, write_segmentation
from ..scene.label_table import labels_of
from ..scene.origin import keep_origin
from ..scene.provenance import of_node
from ..scene.volumes import to_volume
from .desk import Desk
from .doubtful import frame_of_reference
from .inbox import safe_parts

_LONGEST_NAME = 80  # characters
FORMATS = {"seg.nrrd": ".seg.nrrd", "nifti": ".nii.gz", "dicom": ".dcm"}


def write_chosen(desk: Desk, kind: str, folder: Path) -> Path:
    """Write the chosen segmentation to a file in `folder`.

    Args:
        kind: a key of `FORMATS`.

    Raises:
        InputError: no segmentation, or segments that overlap. OutputError: the format cannot hold it.
    """
    node, volume_node = desk.segmentation, desk.volume
    if node is None or volume_node is None:
        raise InputError("There is no segmentation.", "There is nothing to download.", "Segment the image first.")
    path = folder / f"{_file_name(node.GetName())}{FORMATS[kind]}"
    if kind == "seg.nrrd":
        keep_origin(node, volume_node, frame_of_reference(desk.sources.get(volume_node.GetID())))
        write_segmentation(path, node)
    else:
        _write_label_map(desk, path)
    return path


async def write_model(desk: Desk, reference: str, folder: Path) -> Path:
    """Write a version, NAME@VERSION, to a zip file in `folder`. It is proved first: beside the event loop.

    Raises:
        BundleError: there is no such version, or it is unsound.
    """
    card = desk.workflow.models.find(reference)
    path = folder / f"{_file_name(f'{card.name}-{card.version}')}.zip"
    return await asyncio.to_thread(desk.workflow.versions.export, reference, path)


def _write_label_map(desk: Desk, path: Path) -> None:
    from dataclasses import replace

    from apformer.files import write_labels

    labels = labels_of(desk.segmentation)
    image = to_volume(desk.volume)
    source = desk.sources.get(desk.volume.GetID())
    if path.suffix == ".dcm" and (source is None or not source.dicom_files):
        raise OutputError(
            "A DICOM segmentation refers to the DICOM slices it was made on, and this image did not come as such.",
            "Nothing was written.",
            "Download .seg.nrrd or NIfTI, or upload the DICOM slices and segment these.",
        )
    made_by = of_node(desk.segmentation)
    notes = {} if made_by is None else {"model": made_by.model, "model_version": made_by.model_version}
    label_map = to_label_map(desk.segmentation, desk.volume, labels)
    reference = image if source is None else replace(image, source=source)
    write_labels(path, label_map, labels, reference=reference, provenance=notes)


def _file_name(text: str) -> str:
    """A name that every system takes, short enough for one."""
    return safe_parts(re.sub(r"[^\w.-]+", "-", text).strip("-.")[:_LONGEST_NAME] or "segmentation")[-1]
