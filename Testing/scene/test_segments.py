"""Labels become segments by name, exactly on the grid of the volume, and nothing else in the segmentation changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from apformer.bundles.labels import Code, Label
from apformer.errors import InputError, OutputError
from apformer.volume import Volume
from APFormerSlicerLib.scene import Result, new_segmentation, to_label_map, to_volume, write_result
from APFormerSlicerLib.scene.surface import is_in_3d, show_in_3d
from headless import Host, VolumeMaker, draw, matrix_of, redraw, segment_mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Labels = tuple[Label, Label]


def mask_of(node: Any, name: str, volume_node: Any) -> np.ndarray:
    i, j, k = volume_node.GetImageData().GetDimensions()
    return segment_mask(node, node.GetSegmentation().GetSegmentIdBySegmentName(name), (k, j, i))


def test_a_result_comes_back_exactly(a_volume_node: Any, a_result: Result, an_image: Volume) -> None:
    written = write_result(a_volume_node, a_result)
    back = to_label_map(written.segmentation_node, a_volume_node, a_result.labels)
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, a_result.array)
    assert np.array_equal(back.ijk_to_ras, to_volume(a_volume_node).ijk_to_ras)


def test_segments_have_the_labels_names_and_colours(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    segmentation = written.segmentation_node.GetSegmentation()
    assert list(written.segment_ids) == ["Liver", "Left kidney"]
    liver = segmentation.GetSegment(written.segment_ids["Liver"])
    assert liver.GetName() == "Liver"
    assert np.allclose(liver.GetColor(), np.array([221, 130, 101]) / 255)
    assert written.replaced == ()
    assert written.segmentation_node.GetName() == "CT segmentation"


def test_all_labels_share_one_layer_cut_to_its_content(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    segmentation = written.segmentation_node.GetSegmentation()
    assert segmentation.GetNumberOfLayers() == 1
    assert segmentation.GetLayerDataObject(0).GetExtent() == (1, 6, 2, 5, 1, 4)


def test_the_volume_is_the_reference_of_the_segmentation(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is a_volume_node
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    assert node.GetSegmentation().GetConversionParameter(name).endswith("0;6;0;5;0;4;")


def test_a_result_follows_its_volume_under_a_transform(
    a_volume_node: Any, a_transform: Any, a_result: Result, an_image: Volume
) -> None:
    a_volume_node.SetAndObserveTransformNodeID(a_transform.GetID())
    node = write_result(a_volume_node, a_result).segmentation_node
    assert node.GetParentTransformNode() is a_transform
    assert np.array_equal(to_label_map(node, a_volume_node, a_result.labels).array, a_result.array)
    centre = node.GetSegmentCenterRAS(node.GetSegmentation().GetSegmentIdBySegmentName("Left kidney"))
    expected = to_volume(a_volume_node).ijk_to_ras @ [6, 5, 4, 1]
    assert np.allclose(centre, expected[:3], atol=1e-6)


def test_a_result_on_a_bent_volume_is_written_beside_it(a_volume_node: Any, a_warp: Any, a_result: Result) -> None:
    """The volume cannot be segmented under the warp, but may have been put there since."""
    a_volume_node.SetAndObserveTransformNodeID(a_warp.GetID())
    node = write_result(a_volume_node, a_result).segmentation_node
    assert np.array_equal(mask_of(node, "Liver", a_volume_node), a_result.array == 1)


def test_a_segmentation_that_is_placed_otherwise_gets_the_result_where_the_volume_is(
    a_volume_node: Any, a_transform: Any, a_result: Result
) -> None:
    node = new_segmentation(a_volume_node)
    node.SetAndObserveTransformNodeID(a_transform.GetID())
    write_result(a_volume_node, a_result, node)
    assert node.GetParentTransformNode() is a_transform
    assert np.array_equal(to_label_map(node, a_volume_node, a_result.labels).array, a_result.array)


def test_a_segmentation_under_a_warp_is_refused_untouched(a_volume_node: Any, a_warp: Any, a_result: Result) -> None:
    node = new_segmentation(a_volume_node)
    node.SetAndObserveTransformNodeID(a_warp.GetID())
    with pytest.raises(InputError, match="bends space"):
        write_result(a_volume_node, a_result, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_a_cropped_volume_whose_indices_do_not_begin_at_zero_keeps_its_result_in_place(
    make_volume_node: VolumeMaker, two_labels: Labels, a_result: Result
) -> None:
    node = make_volume_node(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 3.0, 4.0, 1.0]))
    crop = vtk.vtkExtractVOI()
    crop.SetInputData(node.GetImageData())
    crop.SetVOI(1, 3, 2, 3, 1, 2)
    crop.Update()
    node.SetAndObserveImageData(crop.GetOutput())
    array = np.zeros((2, 2, 3), np.uint8)
    array[1, 0, 2] = 1
    written = write_result(node, Result(array, two_labels, a_result.provenance))
    assert np.array_equal(to_label_map(written.segmentation_node, node, two_labels).array, array)
    assert written.segmentation_node.GetSegmentCenterRAS(written.segment_ids["Liver"]) == (6.0, 6.0, 8.0)


def test_a_label_that_was_not_found_has_an_empty_segment(a_volume_node: Any, a_result: Result) -> None:
    only_liver = np.where(a_result.array == 1, a_result.array, 0)
    written = write_result(a_volume_node, Result(only_liver, a_result.labels, a_result.provenance))
    assert not mask_of(written.segmentation_node, "Left kidney", a_volume_node).any()
    assert mask_of(written.segmentation_node, "Liver", a_volume_node).sum() == 18


def test_a_result_without_any_label_has_empty_segments(a_volume_node: Any, a_result: Result) -> None:
    nothing = Result(np.zeros_like(a_result.array), a_result.labels, a_result.provenance)
    written = write_result(a_volume_node, nothing)
    assert list(written.segment_ids) == ["Liver", "Left kidney"]
    assert np.array_equal(to_label_map(written.segmentation_node, a_volume_node, a_result.labels).array, nothing.array)
    write_result(a_volume_node, a_result, written.segmentation_node)
    assert np.array_equal(to_label_map(written.segmentation_node, a_volume_node, a_result.labels).array, a_result.array)


def test_other_segments_stay_voxel_for_voxel_where_they_overlap(a_volume_node: Any, a_result: Result) -> None:
    node = new_segmentation(a_volume_node)
    tumour = np.zeros_like(a_result.array)
    tumour[0:4, 1:4, 0:5] = 1
    segment_id = draw(node, "Tumour", tumour, matrix_of(a_volume_node))
    segment = node.GetSegmentation().GetSegment(segment_id)
    segment.SetColor(0.1, 0.2, 0.3)
    segment.SetTag("Reader", "first")
    before = segment.GetMTime()
    write_result(a_volume_node, a_result, node)
    assert node.GetSegmentation().GetNthSegmentID(0) == segment_id
    assert np.array_equal(mask_of(node, "Tumour", a_volume_node), tumour)
    assert segment.GetMTime() == before
    assert np.array_equal(mask_of(node, "Liver", a_volume_node), a_result.array == 1)


def test_a_second_result_replaces_segments_of_its_names_and_keeps_their_ids(
    a_volume_node: Any, a_result: Result
) -> None:
    first = write_result(a_volume_node, a_result)
    array = np.zeros_like(a_result.array)
    array[0:2, 0:2, 0:2] = 3
    second = write_result(a_volume_node, Result(array, a_result.labels, a_result.provenance), first.segmentation_node)
    assert second.replaced == ("Liver", "Left kidney")
    assert second.segment_ids == first.segment_ids
    assert np.array_equal(to_label_map(second.segmentation_node, a_volume_node, a_result.labels).array, array)
    assert second.segmentation_node.GetSegmentation().GetNumberOfLayers() == 1


def test_replacing_a_segment_leaves_those_that_share_its_layer(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    kidney = a_result.labels[1]
    moved = np.zeros_like(a_result.array)
    moved[1:3, 2:5, 1:4] = kidney.value  # onto the liver
    write_result(a_volume_node, Result(moved, [kidney], a_result.provenance), node)
    assert np.array_equal(mask_of(node, "Liver", a_volume_node), a_result.array == 1)
    assert np.array_equal(mask_of(node, "Left kidney", a_volume_node), moved == kidney.value)
    liver = node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName("Liver"))
    layer = liver.GetRepresentation("Binary labelmap").GetPointData().GetScalars()
    assert layer.GetValueRange() == (0, 1)  # the kidney left nothing behind in it


def test_a_colour_that_the_user_chose_is_kept(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    liver = written.segmentation_node.GetSegmentation().GetSegment(written.segment_ids["Liver"])
    liver.SetColor(0.0, 0.0, 1.0)
    liver.SetColorAutoGenerated(False)  # as Slicer's colour selector does
    write_result(a_volume_node, a_result, written.segmentation_node)
    assert liver.GetColor() == (0.0, 0.0, 1.0)


def test_surfaces_that_are_shown_follow_the_result(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    node = written.segmentation_node
    assert show_in_3d(node)
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(written.segment_ids["Liver"], surface)
    before = surface.GetBounds()
    grown = np.where(a_result.array == 1, 1, 0).astype(np.uint8)
    grown[0:5, 2:5, 1:4] = 1
    write_result(a_volume_node, Result(grown, a_result.labels, a_result.provenance), node)
    assert is_in_3d(node)
    node.GetClosedSurfaceRepresentation(written.segment_ids["Liver"], surface)
    assert surface.GetBounds()[5] - surface.GetBounds()[4] > before[5] - before[4] + 2.5  # 2.5 mm slices


def test_a_new_segment_gets_a_surface_where_others_have_one(a_volume_node: Any, a_result: Result) -> None:
    node = new_segmentation(a_volume_node)
    draw(node, "Tumour", a_result.array == 1, matrix_of(a_volume_node))
    assert show_in_3d(node)
    written = write_result(a_volume_node, a_result, node)
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(written.segment_ids["Liver"], surface)
    assert surface.GetNumberOfPoints() > 0


def test_views_are_told_once_and_when_all_is_written(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    emptied = Result(np.zeros_like(a_result.array), a_result.labels, a_result.provenance)
    seen: dict[int, list[int]] = {}
    for event in (slicer.vtkSegmentation.SourceRepresentationModified, slicer.vtkSegmentation.RepresentationModified):
        seen[event] = []
        node.AddObserver(
            event, lambda *_, told=seen[event]: told.append(int(mask_of(node, "Left kidney", a_volume_node).sum()))
        )
    write_result(a_volume_node, emptied, node)
    assert list(seen.values()) == [[0], [0]]


def with_shape(result: Result) -> Result:
    return Result(result.array[1:], result.labels, result.provenance)


def with_unknown_value(result: Result) -> Result:
    return Result(np.where(result.array == 3, 7, result.array), result.labels, result.provenance)


def with_fractions(result: Result) -> Result:
    return Result(result.array.astype(np.float32), result.labels, result.provenance)


def with_wrong_map(result: Result) -> Result:
    return Result(result.array, result.labels, result.provenance, {"uncertainty": np.zeros((1, 1, 1))})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (with_shape, "does not fit CT"),
        (with_unknown_value, "the values 7"),
        (with_fractions, "of type float32"),
        (with_wrong_map, "map of uncertainty has shape"),
    ],
)
def test_a_result_that_does_not_fit_changes_nothing(
    a_scene: Any, a_volume_node: Any, a_result: Result, spoil: Callable[[Result], Result], told: str
) -> None:
    nodes = a_scene.GetNumberOfNodes()
    with pytest.raises(InputError, match=told):
        write_result(a_volume_node, spoil(a_result))
    assert a_scene.GetNumberOfNodes() == nodes


def test_a_segmentation_kept_as_surfaces_is_refused(a_volume_node: Any, a_result: Result) -> None:
    node = new_segmentation(a_volume_node)
    sphere = vtk.vtkSphereSource()
    sphere.Update()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "Ball", [1, 0, 0], "ball")
    node.SetSourceRepresentationToClosedSurface()
    node.RemoveBinaryLabelmapRepresentation()
    with pytest.raises(OutputError, match="kept as closed surface"):
        write_result(a_volume_node, a_result, node)
    assert node.GetSegmentation().GetSourceRepresentationName() == "Closed surface"
    assert node.GetSegmentation().GetNumberOfSegments() == 1


def test_a_segmentation_of_another_scene_is_refused(a_volume_node: Any, a_result: Result) -> None:
    other = slicer.vtkMRMLScene().AddNewNodeByClass("vtkMRMLSegmentationNode", "Elsewhere")
    with pytest.raises(OutputError, match="Elsewhere is no segmentation in the scene of CT"):
        write_result(a_volume_node, a_result, other)


def test_a_segmentation_with_segments_keeps_its_reference_volume(
    make_volume_node: VolumeMaker, a_volume_node: Any, a_result: Result
) -> None:
    other = make_volume_node(np.zeros((2, 2, 2), np.int16), name="PET")
    node = new_segmentation(other)
    draw(node, "Tumour", np.ones((2, 2, 2)), matrix_of(other))
    write_result(a_volume_node, a_result, node)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is other
    assert np.array_equal(to_label_map(node, a_volume_node, a_result.labels).array, a_result.array)
    assert mask_of(node, "Tumour", other).all()


def test_corrected_segments_are_read_with_their_labels_values(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    corrected = np.zeros_like(a_result.array)
    corrected[0, 0, 0] = 1
    redraw(written.segmentation_node, written.segment_ids["Liver"], corrected, matrix_of(a_volume_node))
    draw(written.segmentation_node, "Notes", np.ones_like(corrected), matrix_of(a_volume_node))
    back = to_label_map(written.segmentation_node, a_volume_node, a_result.labels).array
    assert np.array_equal(back, np.where(a_result.array == 3, 3, corrected))


def test_segments_on_a_finer_grid_are_read_on_that_of_the_volume(
    make_volume_node: VolumeMaker, two_labels: Labels
) -> None:
    coarse = make_volume_node(np.zeros((2, 2, 2), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    fine = make_volume_node(np.zeros((4, 4, 4), np.int16), name="Fine")
    node = new_segmentation(fine)
    mask = np.zeros((4, 4, 4))
    mask[2:, :, :] = 1
    draw(node, "Liver", mask, matrix_of(fine))
    assert to_label_map(node, coarse, two_labels).array.tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]


def test_segments_that_reach_beyond_the_volume_are_cut_at_its_border(
    make_volume_node: VolumeMaker, two_labels: Labels
) -> None:
    volume_node = make_volume_node(np.zeros((2, 2, 2), np.int16), np.diag([2.0, 3.0, 4.0, 1.0]))
    matrix = matrix_of(volume_node)
    matrix.SetElement(0, 3, -2.0)  # one voxel further along i
    node = new_segmentation(volume_node)
    mask = np.zeros((3, 3, 3))
    mask[0, 0, :] = mask[2, 2, 2] = 1
    draw(node, "Liver", mask, matrix)
    outside = vtk.vtkMatrix4x4()
    outside.DeepCopy(matrix)
    outside.SetElement(0, 3, -20.0)
    draw(node, "Left kidney", np.ones((2, 2, 2)), outside)
    assert to_label_map(node, volume_node, two_labels).array.tolist() == [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]


def test_a_segmentation_of_surfaces_only_is_no_label_map(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    assert show_in_3d(node)
    node.SetSourceRepresentationToClosedSurface()
    node.RemoveBinaryLabelmapRepresentation()
    with pytest.raises(InputError, match="has surfaces, but no voxels"):
        to_label_map(node, a_volume_node, a_result.labels)


def test_segments_that_overlap_are_no_label_map(a_volume_node: Any, a_result: Result) -> None:
    node = new_segmentation(a_volume_node)
    draw(node, "Liver", a_result.array == 1, matrix_of(a_volume_node))
    draw(node, "Left kidney", np.ones_like(a_result.array), matrix_of(a_volume_node))
    with pytest.raises(InputError, match="Left kidney overlaps Liver in 18 voxels"):
        to_label_map(node, a_volume_node, a_result.labels)


def test_a_segmentation_without_the_labels_names_is_no_label_map(a_volume_node: Any, two_labels: Labels) -> None:
    node = new_segmentation(a_volume_node)
    draw(node, "Segment_1", np.ones((5, 6, 7)), matrix_of(a_volume_node))
    with pytest.raises(InputError, match="no segment named Liver or Left kidney"):
        to_label_map(node, a_volume_node, two_labels)


small_maps = st.lists(st.integers(0, 3), min_size=24, max_size=24).map(
    lambda values: np.array(values, np.uint8).reshape(2, 3, 4)
)


@given(first=small_maps, second=small_maps, neighbour=small_maps, rewritten=st.sets(st.integers(1, 3), min_size=1))
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_result_over_any_other_comes_back_and_leaves_its_neighbours(
    make_volume_node: VolumeMaker,
    a_host: Host,
    a_result: Result,
    first: np.ndarray,
    second: np.ndarray,
    neighbour: np.ndarray,
    rewritten: set[int],
) -> None:
    organ = Code("SCT", "123037004", "Anatomical Structure")
    labels = [Label(value, f"Organ {value}", (value, 0, 0), organ, organ) for value in (1, 2, 3)]
    volume_node = make_volume_node(np.zeros((2, 3, 4), np.int16))
    node = new_segmentation(volume_node)
    draw(node, "Neighbour", neighbour > 1, matrix_of(volume_node))
    write_result(volume_node, Result(first, labels, a_result.provenance), node)
    again = [label for label in labels if label.value in rewritten]
    kept = np.where(np.isin(second, list(rewritten)), second, 0)
    write_result(volume_node, Result(kept, again, a_result.provenance), node)
    for label in labels:
        expected = (kept if label.value in rewritten else first) == label.value
        assert np.array_equal(mask_of(node, label.name, volume_node), expected)
    assert np.array_equal(mask_of(node, "Neighbour", volume_node), neighbour > 1)
