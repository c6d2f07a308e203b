"""Choosing another image: what is seen, reviewed and offered is of that image and of no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from APFormerSlicerLib.scene import Status, status_of
from APFormerSlicerLib.scene.shown import drawn_on, segmentations_of
from APFormerSlicerLib.scene.surface import is_in_3d
from desk_samples import SHAPE, Seat, a_ct
from vtkmodules.vtkCommonDataModel import vtkPolyData
from workflow_samples import a_block


@pytest.fixture
def two_patients(a_seat: Seat) -> tuple[Any, Any, Any, Any]:
    """The images and segmentations of two patients; the second one is chosen."""
    first = a_seat.load("first")
    of_first = a_seat.segment()
    second = a_seat.load("second")
    of_second = a_seat.segment(a_block(SHAPE, 2))
    return first, of_first, second, of_second


def is_seen(segmentation_node: Any) -> bool:
    return bool(segmentation_node.GetDisplayNode().GetVisibility())


def test_masks_of_other_patients_are_not_seen_on_the_chosen_image(a_seat: Seat, two_patients: tuple[Any, ...]) -> None:
    first, of_first, second, of_second = two_patients
    assert (is_seen(of_first), is_seen(of_second)) == (False, True)
    a_seat.choose(first)
    assert (is_seen(of_first), is_seen(of_second)) == (True, False)
    a_seat.choose(second)
    assert (is_seen(of_first), is_seen(of_second)) == (False, True)


def test_a_segmented_image_that_is_chosen_again_can_be_reviewed_and_downloaded(
    a_seat: Seat, two_patients: tuple[Any, ...]
) -> None:
    first, of_first, _, of_second = two_patients
    assert [one["name"] for one in a_seat.state.segments] == ["anterior", "posterior"]
    a_seat.load("third")
    assert a_seat.desk.segmentation is None
    assert a_seat.state.segments == [] == a_seat.state.segmentations
    a_seat.choose(first)
    assert a_seat.desk.segmentation is of_first
    assert len(a_seat.state.segments) == 2
    a_seat.act("accept")
    assert {one["status"] for one in a_seat.state.segments} == {"accepted"}
    assert all(status_of(one) is Status.IN_PROGRESS for one in segments(of_second))


def test_of_several_segmentations_the_one_that_was_looked_at_last_comes_back(a_seat: Seat) -> None:
    image = a_seat.load("first")
    older = a_seat.segment()
    a_seat.do(lambda: setattr(a_seat.desk.workflow.state, "segmentation", None))
    newer = a_seat.segment()
    assert newer is not older
    other = a_seat.load("second")
    a_seat.choose(image)
    assert a_seat.desk.segmentation is newer
    assert is_seen(older) and is_seen(newer)
    a_seat.set("segmentation_id", older.GetID())
    a_seat.choose(other)
    a_seat.choose(image)
    assert a_seat.desk.segmentation is older


def test_what_the_user_has_hidden_stays_hidden_when_its_image_is_chosen_again(
    a_seat: Seat, two_patients: tuple[Any, ...]
) -> None:
    first, of_first, second, of_second = two_patients
    of_second.GetDisplayNode().SetVisibility(False)
    a_seat.choose(first)
    a_seat.choose(second)
    assert (is_seen(of_first), is_seen(of_second)) == (False, False)


def test_a_map_of_the_image_before_is_taken_off_the_views(a_seat: Seat) -> None:
    first = a_seat.load("first")
    a_seat.segment(maps={"uncertainty": np.full(SHAPE, 0.5, np.float32)})
    a_seat.act("toggle_map", "uncertainty")
    assert foregrounds(a_seat) == {"first uncertainty"}
    a_seat.load("second")
    a_seat.segment(maps={"uncertainty": np.full(SHAPE, 0.5, np.float32)})
    assert (foregrounds(a_seat), a_seat.state.map_shown) == (set(), "")
    a_seat.choose(first)
    assert (foregrounds(a_seat), a_seat.state.map_shown) == (set(), "")
    a_seat.act("toggle_map", "uncertainty")
    assert foregrounds(a_seat) == {"first uncertainty"}


def test_each_result_is_seen_in_3d_and_in_sight(a_seat: Seat, two_patients: tuple[Any, ...]) -> None:
    first, of_first, _, of_second = two_patients
    for node in (of_first, of_second):
        assert is_in_3d(node)
        assert bounds(node)[0] < bounds(node)[1]
    far = a_seat.load("far away", a_ct(at=(500.0, 0.0, 0.0)))
    a_seat.segment()
    assert looked_at(a_seat)[0] == pytest.approx(500.0, abs=20.0)
    for image, middle in ((first, 0.0), (far, 500.0)):
        a_seat.choose(image)
        assert looked_at(a_seat)[0] == pytest.approx(middle, abs=20.0)


def test_the_view_in_3d_stays_as_the_user_turned_it_when_a_result_is_replaced(a_seat: Seat) -> None:
    a_seat.load("first")
    node = a_seat.segment()
    (view,) = a_seat.desk.slicer.view_manager.get_threed_views()
    view.renderer().GetActiveCamera().SetPosition(300.0, 20.0, 10.0)
    assert a_seat.segment() is node
    assert view.renderer().GetActiveCamera().GetPosition() == (300.0, 20.0, 10.0)


def test_surfaces_follow_a_stroke_also_of_the_second_image(a_seat: Seat, two_patients: tuple[Any, ...]) -> None:
    *_, of_second = two_patients
    before = bounds(of_second)
    a_seat.do(lambda: paint_all(a_seat))
    assert is_in_3d(of_second)
    assert bounds(of_second)[1] > before[1]


def test_a_result_of_an_image_that_is_not_chosen_any_more_waits_for_it(a_seat: Seat) -> None:
    first = a_seat.load("first")
    asked = a_seat.begin()
    second = a_seat.load("second")
    a_seat.finish(asked=asked)
    (node,) = segmentations_of(a_seat.desk.scene)
    assert not is_seen(node)
    assert a_seat.desk.volume is second and a_seat.desk.segmentation is None
    assert a_seat.desk.editing.GetSegmentationNode() is None
    assert a_seat.told("info") == ["first is segmented. Choose it in step 1 to look at the result."]
    a_seat.choose(first)
    assert a_seat.desk.segmentation is node and is_seen(node) and drawn_on(node) is first


def test_undo_changes_nothing_of_an_image_that_is_not_seen(a_seat: Seat, two_patients: tuple[Any, ...]) -> None:
    *_, of_second = two_patients
    a_seat.do(lambda: paint_all(a_seat))
    assert a_seat.state.can_undo
    painted = bounds(of_second)
    a_seat.load("third")
    assert not a_seat.state.can_undo
    a_seat.press("Control+z")
    assert bounds(of_second) == painted


def test_an_image_keeps_its_region(a_seat: Seat) -> None:
    from APFormerSlicerLib.web.importing import _box

    image = a_seat.load("first")
    box = a_seat.do(lambda: _box(a_seat.desk.scene, "Left", (8.0, 8.0, 8.0), 4.0))
    a_seat.do(a_seat.page._segment.refresh)
    a_seat.set("region_id", box.GetID())
    a_seat.load("second")
    assert a_seat.state.region_id == ""
    a_seat.choose(image)
    assert a_seat.state.region_id == box.GetID()


def segments(segmentation_node: Any) -> list[Any]:
    segmentation = segmentation_node.GetSegmentation()
    return [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]


def foregrounds(a_seat: Seat) -> set[str]:
    """The names of the maps that lie over the image in any slice view."""
    views = a_seat.desk.slicer.view_manager.get_slice_views()
    nodes = [a_seat.desk.scene.GetNodeByID(view.get_foreground_volume_id() or "") for view in views]
    return {node.GetName() for node in nodes if node is not None}


def bounds(segmentation_node: Any) -> list[float]:
    """Of the first segment's surface, mm: left, right, back, front, bottom, top."""
    polygons = vtkPolyData()
    for segment in segments(segmentation_node):
        found = segment.GetRepresentation("Closed surface")
        if found is not None and found.GetNumberOfPoints():
            polygons = found
    return [round(one, 2) for one in polygons.GetBounds()]


def looked_at(a_seat: Seat) -> tuple[float, float, float]:
    """The middle of the view in 3D, RAS in mm."""
    (view,) = a_seat.desk.slicer.view_manager.get_threed_views()
    return view.renderer().GetActiveCamera().GetFocalPoint()


def paint_all(a_seat: Seat) -> None:
    """Make the chosen segment of the whole image, as a tool of the segment editor does."""
    editor = a_seat.desk.editing.editor
    labels = editor.create_modifier_labelmap()
    labels.GetPointData().GetScalars().Fill(1)
    editor.apply_labelmap(labels)


def test_where_another_region_is_chosen_the_segmentations_of_the_image_can_still_be_chosen(a_seat: Seat) -> None:
    a_seat.load("first")
    node = a_seat.segment()
    a_seat.do(lambda: setattr(a_seat.desk.workflow.state, "segmentation", None))
    assert a_seat.state.segments == []
    assert [one["value"] for one in a_seat.state.segmentations] == [node.GetID()]
    a_seat.set("segmentation_id", node.GetID())
    assert len(a_seat.state.segments) == 2


def test_brackets_change_the_size_of_the_brush_within_its_bounds(a_seat: Seat, two_patients: tuple[Any, ...]) -> None:
    a_seat.press("p")
    for key, wanted in (("]", 6), ("]", 7), ("[", 6)):
        a_seat.press(key)
        assert a_seat.state.brush_mm == wanted
    for _ in range(40):
        a_seat.press("[")
    assert a_seat.state.brush_mm == 1
