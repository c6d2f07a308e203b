"""Slicer's slice and 3D views, streamed into the page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from slicer import vtkMRMLSliceNode
from trame.widgets import html
from trame.widgets import vuetify3 as v
from trame_server import Server
from trame_slicer.app.logic.slice_view_logic import connect_slice_view_slider_to_state
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition

from .allowed import Allowed
from .corners import build_corners
from .drawing import Drawing
from .slices import ViewSlices
from .values import number, one_of

LAYOUTS = {"four": "Four views", "axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal", "3d": "3D"}
_BLACK = "#0a0d11"
_QUALITY = 70  # JPEG, while something moves; a still picture follows at 90
# Colours are those of Slicer's own slice views.
_AXIAL = ViewLayoutDefinition.axial_view("Red")
_CORONAL = ViewLayoutDefinition.coronal_view("Green")
_SAGITTAL = ViewLayoutDefinition.sagittal_view("Yellow")
_THREE_D = ViewLayoutDefinition.threed_view(background_color=(_BLACK, _BLACK))
SLICE_VIEWS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
_AT_WORK = ("MouseMoveEvent", "LeftButtonPressEvent", "MouseWheelForwardEvent", "MouseWheelBackwardEvent")


class Views:
    """The views of one page.

    Attributes:
        pointed: the name of the slice view that the pointer was in last.
    """

    def __init__(self, server: Server, slicer: SlicerApp, allowed: Allowed) -> None:
        self._server, self._slicer = server, slicer
        self.pointed = "Red"
        register_rca_factories(
            slicer.view_manager,
            server,
            slice_view_ui_f=partial(self._slice_corner, allowed=allowed),
            three_d_view_ui_f=_three_d_corner,
            rca_encoder="turbo-jpeg",  # Pillow where libjpeg-turbo's Python package is missing
            interactive_quality=_QUALITY,
            blur_fps=15.0,
        )
        self._layouts = LayoutManager(slicer.scene, slicer.view_manager, server)
        self._layouts.register_layout_dict(_layouts())
        self._layouts.set_layout("four")
        self._drawing = Drawing(slicer.view_manager.get_views())
        server.state.view_layout = "four"
        allowed.fields["view_layout"] = one_of(tuple(LAYOUTS))
        server.state.change("view_layout")(lambda view_layout, **_: self._layouts.set_layout(view_layout))

    def place(self, page: Any) -> None:
        """Where the views are drawn."""
        self._layouts.initialize_layout_grid(page)

    def names(self) -> set[str]:
        """Of the views that are streamed."""
        return {view.get_singleton_tag() for view in self._slicer.view_manager.get_views()}

    def show_volume(self, node: Any) -> None:
        """Lay it under everything else, whole and centred; None clears the views."""
        self._slicer.display_manager.show_volume_in_slice_background(node)
        if node is not None:
            self.reset()

    def reset(self) -> None:
        """Everything in sight, from the front, at the middle slices."""
        for view in self._slicer.view_manager.get_views():
            view.reset_view()

    def fit(self) -> None:
        """Everything in sight, from the front, at the slices that are shown."""
        places = {name: self.slice_value(name) for name in SLICE_VIEWS}
        self.reset()
        for name, place in places.items():
            self.set_slice_value(name, place)

    def scroll(self, steps: int, name: str = "Red") -> None:
        """Move a slice view by so many slices."""
        view = self._slicer.view_manager.get_view(name)
        view.set_slice_value(view.get_slice_value() + steps * view.get_slice_step())

    def node(self, name: str) -> Any:
        """The vtkMRMLSliceNode of a slice view."""
        return self._slicer.view_manager.get_view(name).get_view_node()

    def slices(self, name: str, volume_node: Any) -> ViewSlices | None:
        """Those of the volume that a slice view goes through; None where it cuts through them at an angle."""
        return ViewSlices.of(self.node(name), volume_node)

    def slice_value(self, name: str) -> float:
        """Where a slice view is, mm along its slider."""
        return float(self._slicer.view_manager.get_view(name).get_slice_value())

    def set_slice_value(self, name: str, value: float) -> None:
        self._slicer.view_manager.get_view(name).set_slice_value(value)

    def centre_on(self, ras: Sequence[float]) -> None:
        """Centre all slice views on a place, mm."""
        node = vtkMRMLSliceNode
        node.JumpAllSlices(self._slicer.scene, *ras, node.CenteredJumpSlice)

    def show_place(self, ras: Sequence[float]) -> None:
        """Scroll all slice views to a place, mm, without moving the image in them."""
        node = vtkMRMLSliceNode
        node.JumpAllSlices(self._slicer.scene, *ras, node.OffsetJumpSlice)

    def frame_3d(self) -> None:
        """Everything that is shown in 3D in sight."""
        for view in self._slicer.view_manager.get_threed_views():
            view.reset_view()

    def _slice_corner(self, server: Server, _view_id: str, view: Any, *, allowed: Allowed) -> None:
        """The view's name, a slider through the slices, and a strip of what is known of them."""
        name = view.get_singleton_tag()
        for event in _AT_WORK:
            view.interactor().AddObserver(event, lambda *_: setattr(self, "pointed", name))
        slider = connect_slice_view_slider_to_state(server, view)
        allowed.fields[slider.name.value] = lambda place: number(*view.get_slice_range())(place)
        build_corners(name, SLICE_VIEWS.get(name, name))
        html.Div("No image yet", classes="view-empty", v_if="!image_id")
        with html.Div(classes="view-slider", v_if="image_id"):
            _build_strip(name, slider.name.value)
            v.VSlider(
                v_model=(slider.name.value,),
                name=f"{SLICE_VIEWS.get(name, name)} slice, mm",
                min=(slider.name.min_value,),
                max=(slider.name.max_value,),
                step=(slider.name.step,),
                hide_details=True,
                density="compact",
                thumb_size=10,
                track_size=2,
                color="grey-lighten-1",
            )


def _layouts() -> dict[str, Layout]:
    column, row = LayoutDirection.Vertical, LayoutDirection.Horizontal
    return {
        "four": Layout(row, [Layout(column, [_AXIAL, _SAGITTAL]), Layout(column, [_THREE_D, _CORONAL])]),
        "axial": Layout(column, [_AXIAL]),
        "coronal": Layout(column, [_CORONAL]),
        "sagittal": Layout(column, [_SAGITTAL]),
        "3d": Layout(column, [_THREE_D]),
    }


def _three_d_corner(_server: Server, _view_id: str, _view: Any) -> None:
    html.Div("3D", classes="view-name")
    html.Div("Surfaces appear here once something is segmented", classes="view-empty", v_if="!segments.length")


# The slice of a mark that the pointer is over: one of a run of neighbouring slices.
_UNDER_POINTER = (
    "mark.from + mark.step * Math.floor(0.999 * mark.count * $event.offsetX / $event.currentTarget.offsetWidth)"
)


def _build_strip(name: str, place: str) -> None:
    """What `strips` tells of a view's slices, and a button that marks the one that is shown.

    Args:
        place: where the view's slider stands, mm: a name of the page's state.
    """
    strip = f"strips.{name}"
    shown = f"Math.round(({place} - {strip}.first) / {strip}.step)"
    with html.Div(classes="strip", v_if=f"{strip}"):
        html.Div(
            v_for=f"mark in {strip}.marks",
            key="mark.kind + mark.from",
            classes=("`mark ${mark.kind}`",),
            style=("{ left: `${100 * mark.left}%`, width: `${100 * mark.width}%` }",),
            title=("mark.title",),
            click=f"trigger('go_to_slice', ['{name}', {_UNDER_POINTER}])",
        )
    v.VBtn(
        icon="mdi-check-bold",
        click=f"trigger('mark_slice', ['{name}'])",
        v_if=f"{strip}?.by_model",
        active=(f"{strip}.right.includes({shown})",),
        title="This slice is right (M)",
        variant="text",
        size="x-small",
        classes="mark-button",
    )
