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
from .values import number, one_of

LAYOUTS = {"four": "Four views", "axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal", "3d": "3D"}
_BLACK = "#0a0d11"
_QUALITY = 70  # JPEG, while something moves; a still picture follows at 90
# Colours are those of Slicer's own slice views.
_AXIAL = ViewLayoutDefinition.axial_view("Red")
_CORONAL = ViewLayoutDefinition.coronal_view("Green")
_SAGITTAL = ViewLayoutDefinition.sagittal_view("Yellow")
_THREE_D = ViewLayoutDefinition.threed_view(background_color=(_BLACK, _BLACK))
_NAMES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


class Views:
    """The views of one page."""

    def __init__(self, server: Server, slicer: SlicerApp, allowed: Allowed) -> None:
        self._server, self._slicer = server, slicer
        register_rca_factories(
            slicer.view_manager,
            server,
            slice_view_ui_f=partial(_slice_corner, allowed=allowed),
            three_d_view_ui_f=_three_d_corner,
            rca_encoder="turbo-jpeg",  # Pillow where libjpeg-turbo's Python package is missing
            interactive_quality=_QUALITY,
            blur_fps=15.0,
        )
        self._layouts = LayoutManager(slicer.scene, slicer.view_manager, server)
        self._layouts.register_layout_dict(_layouts())
        self._layouts.set_layout("four")
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
        """Everything in sight, from the front."""
        for view in self._slicer.view_manager.get_views():
            view.reset_view()

    def scroll(self, steps: int, name: str = "Red") -> None:
        """Move a slice view by so many slices."""
        view = self._slicer.view_manager.get_view(name)
        view.set_slice_value(view.get_slice_value() + steps * view.get_slice_step())

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


def _layouts() -> dict[str, Layout]:
    column, row = LayoutDirection.Vertical, LayoutDirection.Horizontal
    return {
        "four": Layout(row, [Layout(column, [_AXIAL, _SAGITTAL]), Layout(column, [_THREE_D, _CORONAL])]),
        "axial": Layout(column, [_AXIAL]),
        "coronal": Layout(column, [_CORONAL]),
        "sagittal": Layout(column, [_SAGITTAL]),
        "3d": Layout(column, [_THREE_D]),
    }


def _slice_corner(server: Server, _view_id: str, view: Any, *, allowed: Allowed) -> None:
    """The view's name, and a slider through the slices."""
    name = view.get_singleton_tag()
    slider = connect_slice_view_slider_to_state(server, view)
    allowed.fields[slider.name.value] = lambda place: number(*view.get_slice_range())(place)
    html.Div(_NAMES.get(name, name), classes=f"view-name view-name-{name.lower()}")
    html.Div("No image yet", classes="view-empty", v_if="!image_id")
    with html.Div(classes="view-slider", v_if="image_id"):
        v.VSlider(
            v_model=(slider.name.value,),
            min=(slider.name.min_value,),
            max=(slider.name.max_value,),
            step=(slider.name.step,),
            hide_details=True,
            density="compact",
            thumb_size=10,
            track_size=2,
            color="grey-lighten-1",
        )


def _three_d_corner(_server: Server, _view_id: str, _view: Any) -> None:
    html.Div("3D", classes="view-name")
    html.Div("Surfaces appear here once something is segmented", classes="view-empty", v_if="!segments.length")
