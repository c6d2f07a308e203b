"""How the segments of the chosen segmentation look: what a reader hides, dims, recolours and renames."""

from __future__ import annotations

from trame.widgets import html
from trame.widgets import vuetify3 as v

from ..scene.appearance import (
    fill_opacity,
    is_segment_shown,
    recolor_segment,
    rename_segment,
    set_fill_opacity,
    show_all,
    show_segment,
)
from ..workflow.signals import Signal
from .desk import Desk
from .values import color, number, one_of, text


class SegmentLook:
    """Attributes: changed: a segment looks otherwise, or has another name."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.changed: Signal[()] = Signal()
        segment = one_of(self._ids)
        desk.field("fill_opacity", 0.35, number(0.0, 1.0))
        desk.on("fill_opacity")(self._set_opacity)
        desk.action("toggle_segment", segment)(self.toggle)
        desk.action("toggle_segments")(self.toggle_all)
        desk.action("recolor_segment", segment, color)(self.recolor)
        desk.action("rename_segment", segment, text())(self.rename)

    def refresh(self) -> None:
        """Another segmentation may be chosen, which is dimmed otherwise."""
        if self._desk.segmentation is not None:
            self._desk.state.fill_opacity = round(fill_opacity(self._desk.segmentation), 2)

    def toggle(self, segment_id: str) -> None:
        node = self._desk.segmentation
        show_segment(node, segment_id, not is_segment_shown(node, segment_id))
        self.changed.emit()

    def toggle_all(self) -> None:
        """Hide the segments, to see the image as it is; or show them again."""
        node = self._desk.segmentation
        if node is not None:
            show_all(node, not any(is_segment_shown(node, one) for one in self._ids()))
            self.changed.emit()

    def recolor(self, segment_id: str, rgb: tuple[float, float, float]) -> None:
        recolor_segment(self._desk.segmentation, segment_id, rgb)
        self.changed.emit()

    def rename(self, segment_id: str, name: str) -> None:
        """Raises InputError: see `rename_segment`."""
        try:
            rename_segment(self._desk.segmentation, segment_id, name)
        finally:
            self.changed.emit()  # the field shows the name that it has

    def _set_opacity(self) -> None:
        if self._desk.segmentation is not None:
            set_fill_opacity(self._desk.segmentation, self._desk.state.fill_opacity)

    def _ids(self) -> list[str]:
        node = self._desk.segmentation
        return [] if node is None else list(node.GetSegmentation().GetSegmentIDs())

    # ---------------------------------------------------------------- what it looks like

    @staticmethod
    def build_cell() -> None:
        """In a row of the table, for the segment `one`: an eye and a colour."""
        v.VBtn(
            icon=("one.shown ? 'mdi-eye-outline' : 'mdi-eye-off-outline'",),
            click_native_stop="trigger('toggle_segment', [one.id])",
            __events=[("click_native_stop", "click.stop")],
            title=("`${one.shown ? 'Hide' : 'Show'} ${one.name}`",),
            variant="text",
            size="x-small",
        )
        html.Input(
            type="color",
            value=("one.color",),
            raw_attrs=[
                ':aria-label="`Colour of ${one.name}`"',
                "@change=\"trigger('recolor_segment', [one.id, $event.target.value])\"",
                "@click.stop",
            ],
        )

    @staticmethod
    def build_below() -> None:
        """For all segments how dense they are, and the name of the one that is chosen."""
        with html.Div(classes="two look"):
            v.VTextField(
                model_value=("segments.find((one) => one.id === segment_id)?.name",),
                key=("segment_id + segments.find((one) => one.id === segment_id)?.name",),
                raw_attrs=["@change=\"trigger('rename_segment', [segment_id, $event.target.value])\""],
                label="Name of the marked one",
                density="compact",
                variant="outlined",
                hide_details=True,
                maxlength=64,
            )
            v.VSlider(
                v_model=("fill_opacity",),
                min=0,
                max=1,
                step=0.05,
                name="Opacity of segments in slices",
                label="Opacity",
                density="compact",
                hide_details=True,
                thumb_size=12,
            )
