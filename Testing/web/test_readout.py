"""What stands in the slice views: directions, slice, the value under the pointer; and the crosshair that links them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from apformer.volume import Volume

pytest.importorskip("slicer", reason="slicer-core is not installed")

from APFormerSlicerLib.web.readout import letters, scale_mm
from desk_samples import SHAPE, SIDE, Seat, a_ct, an_mr
from workflow_samples import a_block


def point(a_seat: Seat, ras: tuple[float, float, float], view_name: str = "Red", shift: bool = False) -> None:
    """Move the pointer to a place of the slice that a view shows; no button is pressed."""
    view = a_seat.desk.slicer.view_manager.get_view(view_name)
    interactor, node = view.interactor(), view.get_view_node()
    view.render_window().SetSize(SIDE, SIDE)
    interactor.UpdateSize(SIDE, SIDE)
    view._logic.ResizeSliceNode(SIDE, SIDE)
    to_ras = np.array([[node.GetXYToRAS().GetElement(i, j) for j in range(4)] for i in range(4)])
    x, y = np.linalg.solve(to_ras, [*ras, 1.0])[:2]
    for event, at in (("EnterEvent", (1, 1)), ("MouseMoveEvent", (round(x), round(y)))):
        interactor.SetEventInformation(*at, 0, int(shift), chr(0), 0, None)
        a_seat.do(lambda event=event: interactor.InvokeEvent(event))  # type: ignore[misc]


def leave(a_seat: Seat) -> None:
    interactor = a_seat.desk.slicer.view_manager.get_view("Red").interactor()
    a_seat.do(lambda: interactor.InvokeEvent("LeaveEvent"))


def offsets(a_seat: Seat) -> dict[str, float]:
    return {name: a_seat.desk.views.slice_value(name) for name in ("Red", "Green", "Yellow")}


def test_edges_say_where_they_point_to_with_the_patients_right_at_the_left_of_the_screen(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    told = {name: [one[side] for side in ("left", "right", "top", "bottom")]
            for name in ("Red", "Green", "Yellow") for one in [a_seat.state[f"readout_{name}"]]}  # fmt: skip
    assert told == {"Red": ["R", "L", "A", "P"], "Green": ["R", "L", "S", "I"], "Yellow": ["A", "P", "S", "I"]}


def test_a_direction_between_two_has_both_letters_the_nearest_first() -> None:
    assert letters([0.0, 0.0, -1.0]) == "I"
    assert letters([0.98, 0.17, 0.0]) == "R"  # turned by 10 degrees
    assert letters([0.87, -0.5, 0.0]) == "RP"
    assert letters([-0.5, 0.0, 0.87]) == "SL"


def test_the_slice_and_its_place_are_told_and_follow_the_view(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())  # 6 slices of 3 mm, the first at S 0
    a_seat.do(lambda: a_seat.desk.views.set_slice_value("Red", 9.0))
    assert a_seat.state["readout_Red"]["slice"] == "Slice 4 of 6, S 9.0 mm"
    a_seat.press("ArrowUp")
    assert a_seat.state["readout_Red"]["slice"] == "Slice 5 of 6, S 12.0 mm"
    low = a_seat.load("low", a_ct(at=(0.0, 0.0, -30.0)))
    assert a_seat.desk.volume is low
    a_seat.do(lambda: a_seat.desk.views.set_slice_value("Red", -27.0))
    assert a_seat.state["readout_Red"]["slice"] == "Slice 2 of 6, I 27.0 mm"


def test_the_value_under_the_pointer_is_told_in_hounsfield_units_with_place_and_segment(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    a_seat.segment(a_block(SHAPE))  # voxels 2 and 3 along i and j, of slices 1 and 2
    a_seat.do(lambda: a_seat.desk.views.set_slice_value("Red", 3.0))
    point(a_seat, (5.0, 5.0, 3.0))
    told = a_seat.state.pointed
    assert (told["view"], told["value"], told["segments"]) == ("Red", "40 HU", "anterior")
    point(a_seat, (10.0, 10.0, 3.0))
    told = a_seat.state.pointed
    assert told["segments"] == ""
    r, a, s, mm = (word for word in told["place"].replace("R ", "").replace("A ", "").replace("S ", "").split())
    assert [float(r), float(a), float(s)] == pytest.approx([10.0, 10.0, 3.0], abs=0.1) and mm == "mm"
    point(a_seat, (0.0, 0.0, 3.0))
    assert a_seat.state.pointed["value"] == "-1000 HU"
    point(a_seat, (-9.0, 0.0, 3.0))
    assert a_seat.state.pointed["value"] == "outside"
    leave(a_seat)
    assert a_seat.state.pointed is None


def test_a_hidden_segment_is_not_named_and_other_images_have_no_unit(a_seat: Seat) -> None:
    a_seat.load("MR", an_mr())
    node = a_seat.segment(np.ones(SHAPE, np.uint8), model="volumes")
    a_seat.do(lambda: a_seat.desk.views.set_slice_value("Red", 1.0))
    point(a_seat, (2.0, 1.0, 1.0))
    assert (a_seat.state.pointed["value"], a_seat.state.pointed["segments"]) == (str(64 + 8 + 2), "anterior")
    node.GetDisplayNode().SetVisibility(False)
    point(a_seat, (3.0, 1.0, 1.0))
    assert a_seat.state.pointed["segments"] == ""


def test_a_colour_image_tells_red_green_and_blue(a_seat: Seat) -> None:
    colours = np.stack([np.full((1, 8, 8), one, np.uint8) for one in (10, 20, 30)])
    a_seat.load("photo", Volume(colours, np.eye(4), "RGB"))
    point(a_seat, (2.0, 2.0, 0.0))
    assert a_seat.state.pointed["value"] == "RGB 10 20 30"


def test_shift_and_the_pointer_lead_the_other_views_to_the_place_and_mark_it(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    a_seat.do(lambda: a_seat.desk.views.set_slice_value("Red", 6.0))
    assert not a_seat.state.crosshair
    point(a_seat, (10.0, 4.0, 6.0), shift=True)
    assert a_seat.state.crosshair
    assert offsets(a_seat)["Red"] == 6.0
    assert offsets(a_seat)["Green"] == pytest.approx(4.0, abs=0.2)
    assert abs(offsets(a_seat)["Yellow"]) == pytest.approx(10.0, abs=0.2)
    before = offsets(a_seat)
    point(a_seat, (4.0, 8.0, 6.0))
    assert offsets(a_seat) == before


def test_the_next_place_to_check_is_marked_by_the_crosshair(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    doubt = np.zeros(SHAPE, np.float32)
    doubt[1:4, 2:5, 3:6] = 1.0
    node = a_seat.segment(maps={"uncertainty": doubt})
    (place,) = a_seat.desk.workflow.reviewing.places(node)
    a_seat.press("n")
    assert crosshair(a_seat).GetCrosshairRAS() == pytest.approx(place.ras)
    assert a_seat.state.crosshair and crosshair(a_seat).GetCrosshairMode() == crosshair(a_seat).ShowBasic
    assert offsets(a_seat)["Red"] == pytest.approx(place.ras[2])
    assert a_seat.state.place.startswith(f"R {place.ras[0]:.1f}  A {place.ras[1]:.1f}  S {place.ras[2]:.1f} mm")


def test_the_crosshair_is_hidden_by_its_key_and_with_another_image(a_seat: Seat) -> None:
    a_seat.press("x")
    assert not a_seat.state.crosshair  # nothing to mark
    a_seat.load("CT", a_ct())
    a_seat.press("x")
    assert a_seat.state.crosshair
    a_seat.load("another", a_ct())
    assert not a_seat.state.crosshair
    assert crosshair(a_seat).GetCrosshairMode() == crosshair(a_seat).NoCrosshair


def crosshair(a_seat: Seat) -> Any:
    return a_seat.desk.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")


def test_r_fits_the_views_and_keeps_the_slices(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    a_seat.do(lambda: a_seat.desk.views.set_slice_value("Red", 12.0))
    view = a_seat.desk.slicer.view_manager.get_view("Red")
    a_seat.do(view.zoom_in)
    zoomed = view.get_view_node().GetFieldOfView()[0]
    a_seat.press("r")
    assert a_seat.desk.views.slice_value("Red") == 12.0
    assert view.get_view_node().GetFieldOfView()[0] > zoomed


def test_a_bar_tells_the_scale_in_round_millimetres_and_follows_the_zoom(a_seat: Seat) -> None:
    assert [scale_mm(width) for width in (3.0, 100.0, 399.0, 400.0, 801.0)] == [0.5, 20.0, 50.0, 100.0, 200.0]
    a_seat.load("CT", a_ct())
    told = a_seat.state["readout_Red"]
    width = a_seat.desk.views.node("Red").GetFieldOfView()[0]
    assert float(told["scale_percent"]) == pytest.approx(100 * float(told["scale"].split()[0]) / width, abs=0.01)
    a_seat.do(a_seat.desk.slicer.view_manager.get_view("Red").zoom_in)
    assert float(a_seat.state["readout_Red"]["scale_percent"]) != float(told["scale_percent"])


def test_a_single_slice_has_one_large_view_and_a_volume_after_it_four(a_seat: Seat) -> None:
    a_seat.load("slice", a_ct((1, 8, 8)))
    assert a_seat.state.view_layout == "axial"
    volume = a_seat.load("volume", a_ct())
    assert a_seat.state.view_layout == "four"
    a_seat.set("view_layout", "coronal")
    a_seat.load("another volume", a_ct())
    a_seat.choose(volume)
    assert a_seat.state.view_layout == "coronal"
    side = a_ct((6, 8, 1))
    a_seat.load("sagittal slice", side)
    assert a_seat.state.view_layout == "sagittal"
