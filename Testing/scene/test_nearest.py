"""Segments on a grid of their own, read on that of the volume: as Slicer does it, but in any thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from apformer.bundles.labels import Code, Label
from APFormerSlicerLib.scene import label_maps
from APFormerSlicerLib.scene.geometry import vtk_matrix
from APFormerSlicerLib.scene.label_maps import take_pieces
from APFormerSlicerLib.scene.nearest import nearest
from headless import VolumeMaker, draw

_ANY = Code("SCT", "85756007", "Tissue")
ORGAN = Label(3, "organ", (200, 100, 50), _ANY, _ANY)
SHAPE = (12, 14, 16)


def drawn(scene: Any, matrix: np.ndarray, shape: tuple[int, ...] = (20, 22, 24)) -> Any:
    """A segmentation with a blob on a grid of its own; some voxels at the border of the grid."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")
    k, j, i = np.indices(shape)
    mask = ((k - 8) ** 2 + (j - 10) ** 2 + (i - 9) ** 2 < 60) | (k < 2)
    draw(node, ORGAN.name, mask.astype(np.uint8), vtk_matrix(matrix))
    return node


def turned(spacing: tuple[float, ...], degrees: float, origin: tuple[float, ...]) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= spacing
    matrix[:3, 3] = origin
    return matrix


@pytest.mark.parametrize(
    ("spacing", "degrees", "origin"),
    [
        ((0.7, 0.6, 0.55), 0.0, (0.13, -0.21, 0.08)),  # finer
        ((1.9, 2.3, 1.6), 0.0, (-5.1, 0.3, -2.2)),  # coarser, and beyond the volume
        ((0.9, 0.8, 1.1), 23.0, (1.7, -3.3, 0.4)),
        ((-0.9, 0.8, 1.1), 200.0, (7.7, 9.3, 2.4)),  # mirrored
        ((1.0, 1.0, 1.0), 0.0, (400.0, 0.0, 0.0)),  # elsewhere
    ],
)
def test_it_is_what_slicer_reads(
    a_scene: Any, make_volume_node: VolumeMaker, spacing: Any, degrees: float, origin: Any
) -> None:
    volume = make_volume_node(np.zeros(SHAPE, np.int16))
    node = drawn(a_scene, turned(spacing, degrees, origin))
    segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(ORGAN.name)
    expected = label_maps._resampled(node, volume, segment_id) * ORGAN.value
    assert np.array_equal(take_pieces(node, volume, [ORGAN]).compose(), expected)
    assert expected.any() == (origin[0] < 400)


def test_transforms_above_the_segmentation_are_applied(
    a_scene: Any, make_volume_node: VolumeMaker, a_transform: Any
) -> None:
    volume = make_volume_node(np.zeros(SHAPE, np.int16))
    node = drawn(a_scene, turned((0.7, 0.6, 0.55), 0.0, (0.13, -0.21, 0.08)))
    node.SetAndObserveTransformNodeID(a_transform.GetID())
    segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(ORGAN.name)
    expected = label_maps._resampled(node, volume, segment_id) * ORGAN.value
    assert np.array_equal(take_pieces(node, volume, [ORGAN]).compose(), expected)


def test_below_a_warp_slicer_reads_it(a_scene: Any, make_volume_node: VolumeMaker, a_warp: Any) -> None:
    volume = make_volume_node(np.zeros(SHAPE, np.int16))
    node = drawn(a_scene, np.eye(4))
    node.SetAndObserveTransformNodeID(a_warp.GetID())
    assert take_pieces(node, volume, [ORGAN]).compose().any()


def test_only_the_box_that_it_can_reach_is_looked_at() -> None:
    voxels = np.ones((2, 2, 2), np.uint8)
    to_indices = np.eye(4)
    to_indices[:3, 3] = -5
    box, mask = nearest(voxels, 1, to_indices, (100, 100, 100))
    assert mask.sum() == 8 and mask.size <= 5**3
    whole = np.zeros((100, 100, 100), bool)
    whole[box] = mask
    assert whole[5:7, 5:7, 5:7].all()
