"""The tools of Slicer's segment editor, as part of the review."""

from __future__ import annotations

from apformer.bundles.labels import LONGEST_NAME
from trame.widgets import html
from trame.widgets import vuetify3 as v

from .desk import Desk
from .editing import EFFECTS, ISLANDS
from .parts import button, heading, hint, pressed, text_field
from .values import flag, number, one_of, range_of, text, typed_number

_LARGEST_BRUSH_MM = 200.0
_SMALLEST_MM, _WIDEST_MM = 1, 30  # of its slider
_LARGEST_VALUE = 1e9  # of a voxel
_LARGEST_ISLAND = 1_000_000_000  # voxels

_TOOLS = (
    ("paint", "Paint", "mdi-brush", "P"),
    ("erase", "Erase", "mdi-eraser", "E"),
    ("scissors", "Scissors", "mdi-content-cut", "C"),
    ("threshold", "Threshold", "mdi-contrast-box", "T"),
    ("islands", "Islands", "mdi-circle-multiple-outline", "I"),
)


class EditSection:
    """Edits the chosen segment."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.state.update(
            {"effect": "none", "segment_id": "", "value_range": [0.0, 1.0], "can_undo": False, "can_redo": False}
        )
        desk.field("brush_mm", 5, number(0.1, _LARGEST_BRUSH_MM))
        desk.field("brush_sphere", True, flag)
        desk.field("threshold", [0.0, 1.0], range_of(-_LARGEST_VALUE, _LARGEST_VALUE))
        desk.field("smallest_island", 100, typed_number(1, _LARGEST_ISLAND))
        desk.action("choose_effect", one_of(tuple(EFFECTS)))(self.choose_effect)
        desk.action("choose_segment", one_of(self._segment_ids))(desk.editing.choose_segment)
        desk.action("apply_threshold")(self._apply_threshold)
        desk.action("apply_islands", one_of(tuple(ISLANDS)))(self._apply_islands)
        desk.field("structure_name", "", text(LONGEST_NAME))
        desk.action("add_structure")(self.add_structure)
        desk.action("undo")(self.undo)
        desk.action("redo")(self.redo)
        desk.on("brush_mm", "brush_sphere")(self._set_brush)
        desk.on("threshold")(self._set_threshold)
        desk.editing.connect(self._refresh)

    def choose_effect(self, name: str) -> None:
        """Take a tool, or put it down when it is in hand already."""
        desk = self._desk
        if desk.segmentation is None:
            return
        desk.editing.choose_effect("none" if name == desk.editing.effect_name else name)
        if desk.editing.effect_name in ("paint", "erase"):
            self._set_brush()
        elif desk.editing.effect_name == "threshold":
            low, high = desk.volume.GetImageData().GetScalarRange()
            desk.state.value_range = [low, high]
            desk.state.threshold = list(desk.editing.suggest_threshold())

    def change_brush(self, steps: int) -> None:
        """A larger or smaller brush, in steps of a millimetre."""
        self._desk.state.brush_mm = min(max(self._desk.state.brush_mm + steps, _SMALLEST_MM), _WIDEST_MM)

    def add_structure(self) -> None:
        """Make an empty segment of the name that was typed, and take a brush that paints one slice."""
        desk = self._desk
        segment_id = desk.workflow.new_structure(desk.state.structure_name)
        desk.state.structure_name = ""
        desk.editing.choose_segment(segment_id)
        desk.state.brush_sphere = False
        if desk.editing.effect_name != "paint":
            self.choose_effect("paint")

    def undo(self) -> None:
        self._desk.editing.undo()

    def redo(self) -> None:
        self._desk.editing.redo()

    def _refresh(self) -> None:
        desk = self._desk
        desk.state.effect = desk.editing.effect_name
        desk.state.segment_id = desk.editing.editor.active_segment_id
        desk.state.can_undo = desk.editing.undo_stack.can_undo()
        desk.state.can_redo = desk.editing.undo_stack.can_redo()

    def _set_brush(self) -> None:
        if self._desk.segmentation is not None:
            self._desk.editing.set_brush(float(self._desk.state.brush_mm), bool(self._desk.state.brush_sphere))

    def _set_threshold(self) -> None:
        if self._desk.editing.effect_name == "threshold":
            low, high = self._desk.state.threshold
            self._desk.editing.set_threshold(float(low), float(high))

    def _apply_threshold(self) -> None:
        if self._desk.editing.effect_name == "threshold":
            self._desk.editing.apply_threshold()

    def _apply_islands(self, mode: str) -> None:
        if self._desk.editing.effect_name == "islands":
            self._desk.editing.apply_islands(mode, int(float(self._desk.state.smallest_island or 1)))

    def _segment_ids(self) -> list[str]:
        node = self._desk.segmentation
        return [] if node is None else list(node.GetSegmentation().GetSegmentIDs())

    def build_new(self) -> None:
        """For a structure that no model knows."""
        with html.Div(classes="new-structure"):
            text_field("New structure, such as Tumour", "structure_name")
            button("Outline", "trigger('add_structure')", "mdi-plus", disabled=("!structure_name",))

    def build(self) -> None:
        heading("Correct")
        hint("Tools change the segment that is marked in the table.")
        self.build_new()
        with html.Div(classes="tools"):
            for name, title, icon, key in _TOOLS:
                with v.VBtn(
                    click=f"trigger('choose_effect', ['{name}'])",
                    active=(f"effect === '{name}'",),
                    variant="tonal",
                    size="small",
                    stacked=True,
                    title=f"{title} ({key})",
                    raw_attrs=pressed(f"effect === '{name}'"),
                ):
                    v.VIcon(icon)
                    html.Span(title)
        with html.Div(v_if="effect === 'paint' || effect === 'erase'"):
            v.VSlider(
                v_model=("brush_mm",), min=_SMALLEST_MM, max=_WIDEST_MM, step=1, hide_details=True, density="compact",
                label="Brush, mm", name="Diameter of the brush, mm", thumb_label=True, thumb_size=12,
            )  # fmt: skip
            v.VCheckbox(
                v_model=("brush_sphere",), label="Neighbouring slices too", density="compact", hide_details=True
            )
        hint("Draw a line around what is to be cut away, in a slice or in 3D.", v_if="effect === 'scissors'")
        with html.Div(v_if="effect === 'threshold'"):
            v.VRangeSlider(
                v_model=("threshold",), min=("value_range[0]",), max=("value_range[1]",), hide_details=True,
                density="compact", thumb_label=True, thumb_size=12,
            )  # fmt: skip
            button("Replace the segment", "trigger('apply_threshold')", "mdi-check")
        with html.Div(v_if="effect === 'islands'"):
            button("Keep the largest", "trigger('apply_islands', ['largest'])", "mdi-check")
            with html.Div(classes="two"):
                v.VTextField(
                    v_model=("smallest_island",), type="number", label="Voxels", density="compact",
                    variant="outlined", hide_details=True,
                )  # fmt: skip
                button("Remove smaller", "trigger('apply_islands', ['small'])", "mdi-check")
        with html.Div(classes="undo"):
            button("Undo", "trigger('undo')", "mdi-undo", key="Ctrl Z", disabled=("!can_undo",))
            button("Redo", "trigger('redo')", "mdi-redo", key="Ctrl Y", disabled=("!can_redo",))
