"""A result says what made it, on its segments and on its node, and passes the checks of Slicer's export to DICOM."""

from __future__ import annotations

from typing import Any

import slicer
from apformer.bundles.labels import Label
from APFormerSlicerLib.scene import Provenance, Result, new_segmentation, write_result
from APFormerSlicerLib.scene.provenance import of_node, of_segment
from APFormerSlicerLib.scene.tags import set_tag, tag
from headless import Host


def test_the_node_says_what_made_the_result(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    assert node.GetAttribute("APFormer.Model") == "liver-ct"
    assert node.GetAttribute("APFormer.ModelVersion") == "1.1.0"
    assert node.GetAttribute("APFormer.ModelChecksum") == "ab" * 32
    assert node.GetAttribute("APFormer.Device") == "cpu (Müller's laptop | 8 cores)"
    assert node.GetAttribute("APFormer.Date") == "2026-01-02T03:04:05+01:00"
    assert of_node(node) == a_result.provenance


def test_each_segment_says_what_made_it(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    segment = written.segmentation_node.GetSegmentation().GetSegment(written.segment_ids["Liver"])
    made = of_segment(segment)
    assert made is not None
    assert (made.model, made.model_version) == ("liver-ct", "1.1.0")
    assert made.parameters == {"roi": "0:2,0:3,0:4", "note": "a|b"}


def test_segments_of_two_models_in_one_node_each_say_their_own(
    a_volume_node: Any, a_result: Result, two_labels: tuple[Label, Label]
) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    liver, kidney = two_labels
    other = Provenance.from_report({"model": "kidney-ct", "model_version": "2.0.0"})
    write_result(a_volume_node, Result((a_result.array == 3).astype("uint8") * 3, [kidney], other), node)
    segmentation = node.GetSegmentation()
    models = []
    for label in (liver, kidney):
        made = of_segment(segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(label.name)))
        assert made is not None
        models.append(made.model)
    assert models == ["liver-ct", "kidney-ct"]
    last = of_node(node)
    assert last is not None
    assert (last.model, last.device) == ("kidney-ct", "unknown")


def test_what_we_did_not_make_has_no_provenance(a_volume_node: Any) -> None:
    node = new_segmentation(a_volume_node)
    node.GetSegmentation().AddEmptySegment("hand", "By hand")
    assert of_node(node) is None
    assert of_segment(node.GetSegmentation().GetSegment("hand")) is None


def test_parameters_that_someone_spoiled_do_not_hide_the_model(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    node.SetAttribute("APFormer.Parameters", "{")
    made = of_node(node)
    assert made is not None
    assert (made.model, made.parameters) == ("liver-ct", {})


def test_a_tag_never_holds_the_separator_of_tags() -> None:
    segment = slicer.vtkSegment()
    set_tag(segment, "Note", "left|right")
    assert tag(segment, "Note") == "left/right"
    assert tag(segment, "Other") is None


def test_a_result_passes_the_checks_of_slicers_export_to_dicom(
    a_host: Host, a_volume_node: Any, a_result: Result
) -> None:
    """What DICOMSegmentationPlugin.py of QuantitativeReporting asks of a segmentation."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(a_host.scene)
    hierarchy.CreateItem(hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study"), a_volume_node)
    a_volume_node.SetAttribute("DICOM.instanceUIDs", "1.2.1 1.2.2")
    written = write_result(a_volume_node, a_result)
    node = written.segmentation_node
    item = hierarchy.GetItemByDataNode(node)
    assert hierarchy.GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs") == "1.2.1 1.2.2"
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is a_volume_node
    for segment_id in written.segment_ids.values():
        segment = node.GetSegmentation().GetSegment(segment_id)
        scalars = segment.GetRepresentation("Binary labelmap").GetPointData().GetArray("ImageScalars")
        assert scalars is not None
        assert scalars.GetValueRange() == (0, 3)
        assert tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
        assert tag(segment, "DICOM.SegmentAlgorithmName") == "APFormer liver-ct 1.1.0"
        codes = slicer.vtkSlicerTerminologyEntry()
        assert a_host.terminologies.DeserializeTerminologyEntry(tag(segment, "TerminologyEntry"), codes)
        assert codes.GetCategoryObject().GetCodeValue() == "123037004"
        assert codes.GetTypeObject().GetCodingSchemeDesignator() == "SCT"
        assert codes.GetRegionObject().GetCodeValue() is None  # an empty one would be exported
