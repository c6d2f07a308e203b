"""Of which patient a volume is, as the DICOM module told the subject hierarchy. It is used for a pseudonym only."""

from __future__ import annotations

from typing import Any

import slicer


def patient_of(volume_node: Any) -> str | None:
    """The DICOM patient ID of the volume; None when it was not loaded from DICOM."""
    scene = volume_node.GetScene()
    hierarchy = None if scene is None else scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if hierarchy is None:
        return None
    names = slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(volume_node)
    if item == hierarchy.GetInvalidItemID():
        return None
    patient = hierarchy.GetItemAncestorAtLevel(item, names.GetDICOMLevelPatient())
    if patient == hierarchy.GetInvalidItemID():
        return None
    told = hierarchy.GetItemAttribute(patient, names.GetDICOMPatientIDAttributeName())
    return told or hierarchy.GetItemUID(patient, names.GetDICOMUIDName()) or None
