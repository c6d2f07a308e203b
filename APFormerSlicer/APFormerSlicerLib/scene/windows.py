"""How bright a CT is shown: windows of Hounsfield units under the names that radiologists know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_OURS = "APFormer.Window"  # attribute of the display node: the window that was set without being asked


@dataclass(frozen=True)
class Window:
    """A range of values that is spread over all grays, in Hounsfield units: black at `lower`, white at `upper`."""

    name: str
    center: float
    width: float

    @property
    def lower(self) -> float:
        return self.center - self.width / 2

    @property
    def upper(self) -> float:
        return self.center + self.width / 2

    @staticmethod
    def between(name: str, lower: float, upper: float) -> Window:
        return Window(name, (lower + upper) / 2, upper - lower)

    def shared_with(self, other: Window) -> float:
        """What both show, as a share of what either shows: 0 to 1."""
        common = min(self.upper, other.upper) - max(self.lower, other.lower)
        return max(0.0, common) / (self.width + other.width - max(0.0, common))


# Width and centre as in "Windowing (CT)", https://radiopaedia.org/articles/windowing-ct, where "abdomen" is soft tissue
# of the abdomen, "soft tissue" that of the mediastinum, and "bone" that of the spine.
PRESETS = (
    Window("Abdomen", 50, 400),
    Window("Soft tissue", 50, 350),
    Window("Brain", 40, 80),
    Window("Lung", -600, 1500),
    Window("Bone", 400, 1800),
)


def nearest(window: Window) -> Window:
    """The preset that shows most of what `window` does, and least beside it."""
    return max(PRESETS, key=window.shared_with)


def show_window(volume_node: Any, window: Window) -> None:
    """Show the volume with this window, in all views."""
    display = _display(volume_node)
    display.SetAttribute(_OURS, None)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(window.width, window.center)


def has_window(volume_node: Any, window: Window) -> bool:
    """Whether the volume is shown with it."""
    display = volume_node.GetDisplayNode()
    if display is None or display.GetAutoWindowLevel():
        return False
    return _text(display.GetWindowLevelMin(), display.GetWindowLevelMax()) == _text(window.lower, window.upper)


def show_window_unasked(volume_node: Any, window: Window) -> bool:
    """The same, unless a person or the file's header has chosen how the volume is shown; whether it was done.

    What was set here before may be set anew: nobody chose it.
    """
    if not _is_free(volume_node):
        return False
    show_window(volume_node, window)
    _display(volume_node).SetAttribute(_OURS, _text(window.lower, window.upper))
    return True


def _is_free(volume_node: Any) -> bool:
    """Whether the window is Slicer's own (automatic, or all values that there are), or ours."""
    display = _display(volume_node)
    if display.GetAutoWindowLevel():
        return True
    lower, upper = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    if display.GetAttribute(_OURS) == _text(lower, upper):
        return True
    lowest, highest = volume_node.GetImageData().GetScalarRange()  # which VTK keeps until the voxels change
    return bool(lower <= lowest and highest <= upper)


def _display(volume_node: Any) -> Any:
    if volume_node.GetDisplayNode() is None:
        volume_node.CreateDefaultDisplayNodes()
    return volume_node.GetDisplayNode()


def _text(lower: float, upper: float) -> str:
    return f"{lower:.6g} {upper:.6g}"
