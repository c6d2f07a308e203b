"""Results stand beside their image in the subject hierarchy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from APFormerSlicerLib.scene import Result, write_result
from APFormerSlicerLib.scene.hierarchy import place_beside


@pytest.fixture
def a_hierarchy(a_scene: Any) -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(a_scene)


@pytest.fixture
def a_study(a_hierarchy: Any, a_volume_node: Any) -> int:
    """A study of a patient, with the volume in it."""
    patient = a_hierarchy.CreateSubjectItem(a_hierarchy.GetSceneItemID(), "Patient")
    study = a_hierarchy.CreateStudyItem(patient, "Study")
    a_hierarchy.CreateItem(study, a_volume_node)
    return int(study)


def test_a_result_and_its_maps_stand_in_the_study_of_the_volume(
    a_hierarchy: Any, a_study: int, a_volume_node: Any, a_result: Result
) -> None:
    written = write_result(a_volume_node, replace(a_result, maps={"uncertainty": np.zeros(a_result.array.shape)}))
    for node in (written.segmentation_node, written.overlays["uncertainty"]):
        assert a_hierarchy.GetItemParent(a_hierarchy.GetItemByDataNode(node)) == a_study


def test_an_item_that_slicer_made_is_moved_not_doubled(
    a_scene: Any, a_hierarchy: Any, a_study: int, a_volume_node: Any
) -> None:
    node = a_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    item = a_hierarchy.CreateItem(a_hierarchy.GetSceneItemID(), node)  # Slicer's plugins do this on adding
    items = a_hierarchy.GetNumberOfItems()
    assert place_beside(node, a_volume_node)
    assert a_hierarchy.GetItemParent(item) == a_study
    assert a_hierarchy.GetNumberOfItems() == items


def test_a_segmentation_that_the_user_filed_elsewhere_stays_there(
    a_hierarchy: Any, a_study: int, a_volume_node: Any, a_result: Result
) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    folder = a_hierarchy.CreateFolderItem(a_hierarchy.GetSceneItemID(), "Mine")
    a_hierarchy.SetItemParent(a_hierarchy.GetItemByDataNode(node), folder)
    write_result(a_volume_node, a_result, node)
    assert a_hierarchy.GetItemParent(a_hierarchy.GetItemByDataNode(node)) == folder


def test_a_volume_outside_the_hierarchy_needs_none(a_hierarchy: Any, a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    assert a_hierarchy.GetItemByDataNode(node) == a_hierarchy.GetInvalidItemID()
    assert not place_beside(node, a_volume_node)
