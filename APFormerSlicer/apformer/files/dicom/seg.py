"""DICOM Segmentation objects, through highdicom."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import OutputError
from ...volume import Volume
from .. import itk
from .file import open_dicom

if TYPE_CHECKING:
    from ...bundles.labels import Code, Label

_SERIES_NUMBER = 300  # far from the scanner's own series, so that viewers list it last
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def write(
    path: Path, labels: Volume, definitions: Sequence[Label], reference: Volume, provenance: Mapping[str, str]
) -> None:
    """Write (k, j, i) labels as a binary DICOM SEG that refers to the slices of `reference`.

    Segments are numbered 1, 2, ... by ascending label value, as the standard asks; a label that is absent from the
    array has a segment without frames.

    Raises:
        OutputError: `reference` does not come from DICOM files, was resampled, or lacks what a SEG must repeat, such
            as UIDs of its slices; or no label is present.
        InputError: the files of `reference` can no longer be read.
    """
    files = reference.source.dicom_files
    if not files:
        raise OutputError(
            "A DICOM segmentation needs the DICOM slices it belongs to.",
            "The image was not read from DICOM, or its uneven slices were resampled and no longer match the files.",
            "Write .seg.nrrd or .nii.gz instead.",
        )
    if not np.any(labels.array):
        raise OutputError(
            "The segmentation is empty.",
            "A DICOM segmentation must have at least one frame.",
            "Write .seg.nrrd or .nii.gz to keep an empty result.",
        )
    headers = [open_dicom(file) for file in files]
    uids = {header.text("SOPInstanceUID") for header in headers} - {""}
    if len(uids) < len(headers):
        raise OutputError(
            "A DICOM segmentation refers to its slices by their UIDs.",
            "Slices of this series have none, or share one, as careless anonymisers leave them.",
            "Write .seg.nrrd or .nii.gz instead.",
        )
    try:
        images = [_completed(header.header) for header in headers]
        segmentation = _build(images, labels, sorted(definitions, key=lambda label: label.value), provenance)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise OutputError(
            f"The DICOM segmentation could not be made: {error}.",
            "The source images lack something that a DICOM segmentation must repeat.",
            "Write .seg.nrrd or .nii.gz instead.",
        ) from error
    segmentation.save_as(path)


def _completed(image: Any) -> Any:
    """Add the patient and study attributes that DICOM lets be empty and that anonymizers leave out altogether."""
    for keyword in _MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    return image


def _build(images: list[Any], labels: Volume, definitions: Sequence[Label], provenance: Mapping[str, str]) -> Any:
    hd = _highdicom()

    algorithm = hd.AlgorithmIdentificationSequence(
        name=provenance.get("model", "APFormer"),
        family=hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence"),
        version=provenance.get("model_version", "unknown"),
    )
    lps = itk.flip_lps_ras(labels.ijk_to_ras)
    affine = lps[:, [2, 1, 0, 3]]  # highdicom's array axes are (k, j, i)
    masks = np.stack([labels.array == label.value for label in definitions], axis=-1)
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=hd.Volume(
            masks.astype(np.uint8),
            affine,
            coordinate_system="PATIENT",
            frame_of_reference_uid=images[0].FrameOfReferenceUID,
            channels={"SegmentNumber": list(range(1, len(definitions) + 1))},
        ),
        segmentation_type="BINARY",
        segment_descriptions=[_describe(n, label, algorithm) for n, label in enumerate(definitions, 1)],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="APFormerSlicer",
        manufacturer_model_name=provenance.get("model", "APFormer"),
        software_versions=provenance.get("model_version", "unknown"),
        device_serial_number="none",
        content_description="Automatic segmentation, not reviewed",
        content_label="SEGMENTATION",
        series_description="APFormer segmentation",
        specific_character_set="ISO_IR 192",  # UTF-8: names of segments are in any language
    )


def _describe(number: int, label: Label, algorithm: Any) -> Any:
    hd = _highdicom()

    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_plain(label.name),
        segmented_property_category=_concept(label.category),
        segmented_property_type=_concept(label.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=_plain(label.name),
        display_color=hd.color.CIELabColor.from_rgb(*label.color),
    )
    if label.modifier is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(label.modifier)]
    return description


def _plain(text: str) -> str:
    """One spelling of the text, without the backslash that divides values in DICOM."""
    return unicodedata.normalize("NFC", text).replace("\\", "/")


def _concept(code: Code) -> Any:
    hd = _highdicom()

    return hd.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=_plain(code.meaning))


def _highdicom() -> Any:
    """The package, which Slicer does not bring; its own exporter writes DICOM segmentations there.

    Raises:
        OutputError: it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise OutputError(
            "A DICOM segmentation cannot be written: the package highdicom is not installed.",
            "Nothing was written.",
            "Write .seg.nrrd or .nii.gz instead; in Slicer, export the segmentation to the DICOM database.",
        ) from error
    return highdicom
