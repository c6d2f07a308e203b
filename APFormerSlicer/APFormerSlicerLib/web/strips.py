"""Along the slider of each slice view: which slices were drawn on, marked as right, or are a model's proposal."""

from __future__ import annotations

from typing import Any

from apformer.errors import InputError
from apformer.following import Plane

from ..workflow import Corrected
from ..workflow.marks import marked
from ..workflow.proposals import volume_of
from .desk import Desk
from .slices import ViewSlices
from .values import one_of, whole
from .views import SLICE_VIEWS

# What a mark along a slider means, in the order in which one is drawn over another.
KINDS = {"proposed": "proposed", "drawn": "drawn on", "right": "marked as right"}
_MOST_SLICES = 1 << 20  # of a volume


class Strips:
    """Tells the page of the slices of the chosen segmentation, and does what is asked there."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        views = tuple(SLICE_VIEWS)
        desk.state.strips = dict.fromkeys(views)
        desk.action("go_to_slice", one_of(views), whole(0, _MOST_SLICES))(self._go_to)
        desk.action("mark_slice", one_of(views))(self.mark)

    def show(self, corrected: Corrected | None) -> None:
        """Draw what was corrected; None takes the strips away."""
        self._desk.state.strips = {name: corrected and self._strip(name, corrected) for name in SLICE_VIEWS}

    def mark(self, name: str | None = None) -> None:
        """Mark the slice that a view shows as right, or take the mark back; of the view that the pointer was in last
        where none is named.

        Raises:
            InputError: nothing was proposed that could be right, or the view shows no single slice.
        """
        desk, name = self._desk, name or self._desk.views.pointed
        plane = Plane(self._slices(name).axis, self._shown(name))
        desk.workflow.following.mark(desk.segmentation, plane, plane not in marked(desk.segmentation))

    def _go_to(self, name: str, number: int) -> None:
        slices = self._slices(name)
        self._desk.views.set_slice_value(name, slices.offset(min(number, slices.count - 1)))

    def _shown(self, name: str) -> int:
        return self._slices(name).number(self._desk.views.slice_value(name))

    def _slices(self, name: str) -> ViewSlices:
        found = self._desk.views.slices(name, self._volume)
        if found is None:
            raise InputError(
                f"The {SLICE_VIEWS[name].lower()} view shows no single slice of a segmented image.",
                "There is none to mark or to go to.",
                "Segment the image, or choose its segmentation; R turns the views to its slices.",
            )
        return found

    @property
    def _volume(self) -> Any:
        """The image that is shown, where the chosen segmentation is of it."""
        node, shown = self._desk.segmentation, self._desk.volume
        return shown if node is not None and volume_of(node) is shown else None

    def _strip(self, name: str, corrected: Corrected) -> dict[str, Any] | None:
        slices = self._desk.views.slices(name, self._volume)
        if slices is None:
            return None
        found = corrected.kinds(slices.axis)
        kinds = {kind: found[kind] for kind in KINDS}
        marks = [{**mark, "title": _title(mark)} for mark in slices.marks(kinds)]
        return {
            "first": slices.first,
            "step": slices.step,
            "marks": marks,
            "right": sorted(kinds["right"]),
            "by_model": corrected.by_model,  # there is something that can be right
        }


def _title(mark: dict[str, Any]) -> str:
    """ "Slice 5: marked as right"; people count from 1."""
    low, high = sorted((mark["from"] + 1, mark["from"] + 1 + mark["step"] * (mark["count"] - 1)))
    which = f"Slice {low}" if low == high else f"Slices {low} to {high}"
    return f"{which}: {KINDS[mark['kind']]}"
