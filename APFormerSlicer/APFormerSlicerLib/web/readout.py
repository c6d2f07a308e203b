"""What is told of a slice view: where its edges point to, which slice it shows, what is under the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from apformer.errors import InputError

from ..scene.geometry import matrix_array
from ..scene.probe import segments_at, value_at
from ..workflow.scene_watch import Observation
from .desk import Desk
from .views import SLICE_VIEWS

_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))  # of positive and negative R, A and S
_OBLIQUE = 0.34  # sine of 20 degrees: a direction that is turned by more has two letters
_KEY = "readout_"  # of the page's state, before a view's name
_MOST_SEGMENTS = 3  # that are named
_LONGEST_BAR = 0.25  # of a view's width


class Readout:
    """Keeps `readout_Red` and the like, one for each slice view, and `pointed` of the page's state true."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.state.update({**{_KEY + name: None for name in SLICE_VIEWS}, "pointed": None})
        self._crosshair = desk.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._observations = [
            Observation(self._crosshair, self._crosshair.CursorPositionModifiedEvent, self._point),
            *(Observation(desk.views.node(name), "ModifiedEvent", self.refresh) for name in SLICE_VIEWS),
        ]
        desk.workflow.state.changed.connect(self.refresh)

    def refresh(self, *_: Any) -> None:
        """Tell anew of all views; what stays the same is not sent."""
        volume = self._desk.volume
        for name in SLICE_VIEWS:
            shown = None if volume is None else self._readout(name, volume)
            if shown != self._desk.state[_KEY + name]:  # apart: the page draws a view's words anew when they change
                self._desk.state[_KEY + name] = shown

    def _readout(self, name: str, volume_node: Any) -> dict[str, str]:
        views = self._desk.views
        to_ras = matrix_array(views.node(name).GetSliceToRAS())
        right, up, normal = (to_ras[:3, column] for column in range(3))
        slices, offset = views.slices(name, volume_node), views.slice_value(name)
        place = _along(normal, to_ras[:3, 3])
        width = float(views.node(name).GetFieldOfView()[0])
        scale = scale_mm(width)
        number = "" if slices is None else f"Slice {slices.number(offset) + 1} of {slices.count}, "
        return {
            "left": letters(-right),
            "right": letters(right),
            "top": letters(up),
            "bottom": letters(-up),
            "slice": number + place,
            "scale": f"{scale:g} mm",
            "scale_percent": f"{100 * scale / width:.2f}",
        }

    def _point(self, *_: Any) -> None:
        """The pointer has moved, in whichever view, or has left."""
        desk, ras = self._desk, [0.0, 0.0, 0.0]
        volume, view = desk.volume, self._crosshair.GetCursorPositionXYZ([0.0, 0.0, 0.0])
        if volume is None or view is None or not self._crosshair.GetCursorPositionRAS(ras):
            desk.state.pointed = None
            return
        try:
            value = value_at(volume, ras)
        except InputError:  # below a transform that bends space
            value = None
        node = desk.segmentation
        names = [] if node is None or value is None else segments_at(node, ras)
        desk.state.pointed = {
            "view": view.GetName(),
            "value": "outside" if value is None else _text(value) + (" HU" if desk.state.windows else ""),
            "place": place_text(ras),
            "segments": ", ".join(names[:_MOST_SEGMENTS]),
        }


def letters(direction: Sequence[float] | np.ndarray) -> str:
    """ "R", or "RA" where it points between the two: the nearest of the patient's directions first."""
    found = []
    for axis in np.argsort(-np.abs(np.asarray(direction))):
        if abs(direction[axis]) > _OBLIQUE:
            found.append(_LETTERS[axis][0 if direction[axis] > 0 else 1])
    return "".join(found[:2])


def scale_mm(width: float) -> float:
    """How long a bar is that tells the scale of a view of that width, both in mm: 1, 2 or 5 times a power of ten."""
    most = max(width, 1e-6) * _LONGEST_BAR
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def place_text(ras: Sequence[float]) -> str:
    """ "R 12.0  P 34.5  S 5.0 mm" """
    return "  ".join(_signed(axis, value) for axis, value in enumerate(ras)) + " mm"


def _along(normal: np.ndarray, place: np.ndarray) -> str:
    """Where a plane lies: "S 34.5 mm"; of an oblique one, how far from the origin."""
    axis = int(np.abs(normal).argmax())
    if abs(normal[axis]) > 1.0 - 1e-4:
        return f"{_signed(axis, float(place[axis]))} mm"
    return f"{float(normal @ place):.1f} mm"


def _signed(axis: int, value: float) -> str:
    return f"{_LETTERS[axis][0 if value >= 0 else 1]} {abs(value):.1f}"


def _text(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return "RGB " + " ".join(f"{one:g}" for one in value[:3])
    return f"{value:.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"
