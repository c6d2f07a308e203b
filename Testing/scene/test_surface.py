"""Segments in 3D, where a host registered the conversion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from APFormerSlicerLib.scene import Result, write_result
from APFormerSlicerLib.scene.surface import hide_in_3d, is_in_3d, show_in_3d

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"


def test_segments_are_shown_in_3d_and_hidden_again(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    assert not is_in_3d(node)
    assert show_in_3d(node)
    assert is_in_3d(node)
    assert node.GetDisplayNode().GetVisibility3D()
    hide_in_3d(node)
    assert not is_in_3d(node)


def test_a_result_can_be_shown_in_3d_when_a_label_was_not_found(a_volume_node: Any, a_result: Result) -> None:
    liver = Result((a_result.array == 1).astype("uint8"), a_result.labels, a_result.provenance)
    assert show_in_3d(write_result(a_volume_node, liver).segmentation_node)


def test_segments_that_are_kept_as_surfaces_are_hidden_and_not_lost(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    show_in_3d(node)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    hide_in_3d(node)
    assert not is_in_3d(node) and node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert show_in_3d(node) and is_in_3d(node)


def test_what_was_hidden_in_all_views_is_seen_again(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility(False)
    assert show_in_3d(node) and node.GetDisplayNode().GetVisibility()


def test_without_the_conversion_nothing_is_shown() -> None:
    """In a process of its own: conversions are registered for good."""
    code = (
        "import slicer; from APFormerSlicerLib.scene.surface import is_in_3d, show_in_3d; "
        "scene = slicer.vtkMRMLScene(); node = scene.AddNewNodeByClass('vtkMRMLSegmentationNode'); "
        "node.GetSegmentation().AddEmptySegment('a'); print(show_in_3d(node), is_in_3d(node))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCES, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
