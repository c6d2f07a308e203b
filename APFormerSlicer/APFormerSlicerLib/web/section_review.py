"""The third step: where the network was unsure, what the segments are, and a verdict."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v

from ..scene import Status
from ..scene.appearance import is_segment_shown
from ..scene.shown import put_maps_away
from ..workflow.places import places_of
from .crosshair import Crosshair
from .desk import Desk, color_of
from .legends import Legends
from .parts import button, heading, hint, pressed, select, text_field
from .readout import place_text
from .section_edit import EditSection
from .section_follow import FollowSection
from .segment_look import SegmentLook
from .values import number, one_of, text

_STATUSES = {
    Status.NOT_STARTED: "not started",
    Status.IN_PROGRESS: "to check",
    Status.COMPLETED: "accepted",
    Status.FLAGGED: "flagged",
}
_MAPS = {"uncertainty": "Uncertainty", "kept_tokens": "Where it looked"}
_LONGEST_COMMENT = 2000  # characters


class ReviewSection:
    """Shows what `workflow.reviewing` tells of the chosen segmentation."""

    def __init__(self, desk: Desk, edit: EditSection, follow: FollowSection, crosshair: Crosshair) -> None:
        self._desk, self.edit, self.follow = desk, edit, follow
        self._crosshair, self.look = crosshair, SegmentLook(desk)
        self._shown: Any = None  # the segmentation
        desk.state.update(
            {
                "segments": [],
                "segmentations": [],
                "maps": [],
                "map_shown": "",
                "places_left": 0,
                "places_all": 0,
                "place": "",
            }
        )
        desk.field("segmentation_id", "", one_of(lambda: ["", *(node.GetID() for node in desk.segmentations)]))
        desk.field("map_opacity", 0.5, number(0.0, 1.0))
        desk.field("flag_comment", "", text(_LONGEST_COMMENT))
        for name, call in (
            ("next_place", self.next_place),
            ("accept", self.accept),
            ("flag", self.flag),
            ("visit_again", self._visit_again),
        ):
            desk.action(name)(call)
        desk.action("toggle_map", one_of(tuple(_MAPS)))(self.toggle_map)
        desk.on("map_opacity")(self._show_map)
        desk.state.legends = Legends(desk.scene).all()
        desk.on("segmentation_id")(self._choose)
        desk.workflow.state.changed.connect(self.refresh)
        desk.workflow.reviewing.changed.connect(lambda _: self.refresh())
        desk.workflow.segmenting.segmented.connect(lambda *_: self.refresh())
        desk.editing.connect(self._list_segments)
        self.look.changed.connect(self._list_segments)

    # ---------------------------------------------------------------- what is there

    def refresh(self) -> None:
        desk, node = self._desk, self._desk.segmentation
        desk.state.segmentations = [{"title": one.GetName(), "value": one.GetID()} for one in desk.segmentations]
        desk.state.segmentation_id = "" if node is None else node.GetID()
        desk.editing.edit(node, desk.volume)
        if node is not self._shown:
            if self._shown is not None and self._shown.GetScene() is not None:
                put_maps_away(self._shown)
            desk.state.map_shown = desk.state.place = ""
            self._shown = node
        self.look.refresh()
        self._list_segments()
        reviewing = desk.workflow.reviewing
        desk.state.maps = [] if node is None else reviewing.maps(node)
        if desk.state.map_shown not in desk.state.maps:
            desk.state.map_shown = ""
        places = None if node is None else places_of(node)
        if places is not None:
            desk.state.places_all, desk.state.places_left = len(places), reviewing.left(node)
        else:
            desk.state.places_all = desk.state.places_left = 0
            desk.state.place = ""

    def _list_segments(self) -> None:
        node = self._desk.segmentation
        rows = [] if node is None else self._desk.workflow.reviewing.rows(node)
        self._desk.state.segments = [
            {
                "id": row.segment_id,
                "name": row.name,
                "color": color_of(node.GetSegmentation().GetSegment(row.segment_id)),
                "ml": "..." if row.volume_ml is None else f"{row.volume_ml:.2f}",
                "status": _STATUSES[row.status],
                "model": row.model or "",
                "comment": row.comment,
                "shown": is_segment_shown(node, row.segment_id),
            }
            for row in rows
        ]

    def _choose(self) -> None:
        desk = self._desk
        node = desk.scene.GetNodeByID(desk.state.segmentation_id) if desk.state.segmentation_id else None
        if node is not None and node is not desk.segmentation:
            desk.workflow.state.segmentation = node

    # ---------------------------------------------------------------- what the user does

    def next_place(self) -> None:
        """Go to the most uncertain place that was not visited."""
        desk = self._desk
        place = desk.workflow.reviewing.next_place(desk.segmentation)
        if place is None:
            desk.state.place = "All places were visited."
            return
        self._crosshair.put(place.ras)
        desk.state.place = f"{place_text(place.ras)}; {place.weight_ml:.2f} mL in doubt"
        desk.state.step = "review"

    def _visit_again(self) -> None:
        self._desk.workflow.reviewing.visit_again(self._desk.segmentation)
        self._desk.state.place = ""

    def toggle_map(self, name: str) -> None:
        shown = self._desk.state.map_shown
        self._desk.workflow.reviewing.show_map(
            self._desk.segmentation, None if shown == name else name, self._desk.state.map_opacity
        )
        self._desk.state.map_shown = "" if shown == name else name

    def _show_map(self) -> None:
        if self._desk.state.map_shown:
            self._desk.workflow.reviewing.show_map(
                self._desk.segmentation, self._desk.state.map_shown, self._desk.state.map_opacity
            )

    def accept(self) -> None:
        self._desk.workflow.reviewing.accept(self._desk.segmentation)

    def flag(self) -> None:
        """Flag what was proposed, with the comment that was written."""
        self._desk.workflow.reviewing.flag(self._desk.segmentation, self._desk.state.flag_comment)
        self._desk.state.flag_comment = ""

    # ---------------------------------------------------------------- what it looks like

    def build(self) -> None:
        select(
            "Segmentation", "segmentation_id", "segmentations", v_if="segmentations.length > (segmentation_id ? 1 : 0)"
        )
        with html.Div(v_if="!segments.length && !segmentations.length"):
            hint("Nothing to review yet. Segment the image first, or upload a .seg.nrrd file.")
            button("Go to segment", "step = 'segment'", "mdi-arrow-left", key="2")
            hint("What no model knows: outline it on two to five slices of one plane, then apply to the rest.")
            self.edit.build_new()
        with html.Div(v_if="segments.length"):
            self._build_places()
            self._build_segments()
            self.edit.build()
            self.follow.build()

    def _build_places(self) -> None:
        heading("Where to look")
        with html.Div(v_if="places_all"):
            button(
                "Next place to check",
                "trigger('next_place')",
                "mdi-crosshairs-gps",
                key="N",
                color="primary",
                variant="flat",
                disabled=("!places_left",),
            )
            html.P("{{ places_left }} of {{ places_all }} left. {{ place }}", classes="hint places")
            button("Start over", "trigger('visit_again')", v_if="!places_left", variant="text", size="x-small")
        hint("No uncertain place, or no uncertainty map: ask for it when you segment.", v_else=True)
        with html.Div(classes="maps", v_if="maps.length"):
            for name, title in _MAPS.items():
                button(
                    title,
                    f"trigger('toggle_map', ['{name}'])",
                    "mdi-layers-outline",
                    key=name[0].upper(),
                    v_if=f"maps.includes('{name}')",
                    active=(f"map_shown === '{name}'",),
                )
            Legends.build()
            v.VSlider(
                v_model=("map_opacity",), min=0.1, max=1, step=0.05, hide_details=True, density="compact",
                v_if="map_shown", label="Opacity", name="Opacity of the map", thumb_size=12,
            )  # fmt: skip

    def _build_segments(self) -> None:
        heading("Segments")
        with html.Table(classes="table segments clickable"), html.Tbody():  # noqa: SIM117
            with html.Tr(
                v_for="one in segments",
                key="one.id",
                click="trigger('choose_segment', [one.id])",
                classes=("one.id === segment_id ? 'chosen' : ''",),
                title=("one.comment || one.model",),
            ):
                with html.Td(), html.Div(classes="segment"):
                    self.look.build_cell()
                    with html.Button(type="button", raw_attrs=pressed("one.id === segment_id")):
                        html.Span("{{ one.name }}")
                html.Td("{{ one.ml }} mL", classes="number")
                html.Td("{{ one.status }}", classes=("`status ${one.status.replace(' ', '-')}`",))
        self.look.build_below()
        button("Accept", "trigger('accept')", "mdi-check", key="A", color="success")
        with html.Div(classes="flag"):
            text_field("Something is wrong: say what", "flag_comment")
            button("Flag", "trigger('flag')", "mdi-flag-outline", disabled=("!flag_comment",))
