"""Maps lie on the image's grid beside the segmentation, and later results update them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from apformer.commands.options import MAPS
from APFormerSlicerLib.scene import Result, to_volume, write_result
from APFormerSlicerLib.scene.overlays import LOOKS, hide, overlay, show
from APFormerSlicerLib.scene.provenance import of_node


@pytest.fixture
def a_mapped_result(a_result: Result) -> Result:
    doubt = np.linspace(0, 1, a_result.array.size, dtype=np.float64).reshape(a_result.array.shape)
    return replace(a_result, maps={"uncertainty": doubt, "kept_tokens": (doubt > 0.5).astype(np.float32)})


def test_every_map_of_the_worker_has_a_look() -> None:
    assert set(LOOKS) == set(MAPS)


def test_a_map_lies_on_the_image_under_its_transform(
    a_volume_node: Any, a_transform: Any, a_mapped_result: Result
) -> None:
    a_volume_node.SetAndObserveTransformNodeID(a_transform.GetID())
    node = write_result(a_volume_node, a_mapped_result).overlays["uncertainty"]
    image, doubt = to_volume(a_volume_node), to_volume(node)
    assert node.GetName() == "CT uncertainty"
    assert doubt.array.dtype == np.float32
    assert np.array_equal(doubt.array, a_mapped_result.maps["uncertainty"].astype(np.float32))
    assert np.array_equal(doubt.ijk_to_ras, image.ijk_to_ras)
    assert of_node(node) == a_mapped_result.provenance


def test_a_map_is_shown_from_0_to_1_and_transparent_where_low(a_volume_node: Any, a_mapped_result: Result) -> None:
    overlays = write_result(a_volume_node, a_mapped_result).overlays
    for name, node in overlays.items():
        display = node.GetDisplayNode()
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0.0, 1.0)
        assert display.GetApplyThreshold()
        assert display.GetLowerThreshold() == LOOKS[name].threshold
        assert display.GetColorNodeID() == LOOKS[name].color


def test_a_second_result_updates_the_maps_of_the_first(
    a_scene: Any, a_volume_node: Any, a_mapped_result: Result
) -> None:
    first = write_result(a_volume_node, a_mapped_result)
    sure = replace(a_mapped_result, maps={"uncertainty": np.zeros(a_mapped_result.array.shape)})
    second = write_result(a_volume_node, sure, first.segmentation_node)
    assert second.overlays["uncertainty"] is first.overlays["uncertainty"]
    assert overlay(first.segmentation_node, "uncertainty") is first.overlays["uncertainty"]
    assert not to_volume(second.overlays["uncertainty"]).array.any()
    assert a_scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 3


def test_another_segmentation_has_maps_of_its_own(a_volume_node: Any, a_mapped_result: Result) -> None:
    first, second = (write_result(a_volume_node, a_mapped_result) for _ in range(2))
    assert first.overlays["kept_tokens"] is not second.overlays["kept_tokens"]


def test_a_map_is_laid_over_every_slice_view_and_taken_off(
    a_scene: Any, a_volume_node: Any, a_mapped_result: Result
) -> None:
    red, green = (a_scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name) for name in ("Red", "Green"))
    red.SetBackgroundVolumeID(a_volume_node.GetID())
    node = write_result(a_volume_node, a_mapped_result).overlays["uncertainty"]
    show(node, 0.25)
    for view in (red, green):
        assert (view.GetForegroundVolumeID(), view.GetForegroundOpacity()) == (node.GetID(), 0.25)
    assert red.GetBackgroundVolumeID() == a_volume_node.GetID()
    green.SetForegroundVolumeID(a_volume_node.GetID())
    hide(node)
    assert red.GetForegroundVolumeID() is None
    assert green.GetForegroundVolumeID() == a_volume_node.GetID()
