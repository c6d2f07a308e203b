"""How bright the image is shown: by dragging in a slice view, by windows that radiologists know, by its own values."""

from __future__ import annotations

from typing import Any

from apformer.errors import InputError
from trame.widgets import html
from trame.widgets import vuetify3 as v

from ..scene.windows import PRESETS, Window, has_window
from ..workflow.scene_watch import Observation
from .desk import Desk
from .values import one_of

# Those after the steps' keys, in the order of the presets; "w" gives the brightness back to the image.
KEYS = dict(zip("67890", (preset.name for preset in PRESETS), strict=True))
RESET_KEY = "w"


class WindowMenu:
    """Tells the page how the chosen image is shown, and lets it choose.

    Dragging with the left button is Slicer's own tool: it is in hand wherever no other one is (`lengths`).
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._offered: list[Window] = []
        self._seen: Any = None  # the volume's display node
        self._observation: Observation | None = None
        desk.state.update({"windows": [], "window": None})
        desk.action("show_window", one_of(lambda: [window.name for window in self._offered]))(self.show)
        desk.action("reset_window")(self.reset)
        desk.workflow.state.changed.connect(self.refresh)

    def refresh(self) -> None:
        """Another image or model may be chosen: other windows are offered."""
        desk, volume = self._desk, self._desk.volume
        display = None if volume is None else volume.GetDisplayNode()
        if display is not self._seen:
            if self._observation is not None:
                self._observation.stop()
            self._seen = display
            self._observation = None if display is None else Observation(display, "ModifiedEvent", self._tell)
        self._offered = desk.workflow.windows.offered()
        keys = {name: key for key, name in KEYS.items()}
        desk.state.windows = [
            {"name": window.name, "key": keys.get(window.name, ""), "line": _line(window.width, window.center)}
            for window in self._offered
        ]
        self._tell()

    def _tell(self, *_: Any) -> None:
        """How it is shown now, whoever has changed it."""
        volume = self._desk.volume
        if self._seen is None or volume is None or volume.IsA("vtkMRMLVectorVolumeNode"):
            self._desk.state.window = None
            return
        name = next((window.name for window in self._offered if has_window(volume, window)), "")
        line = _line(self._seen.GetWindow(), self._seen.GetLevel())
        self._desk.state.window = {"name": name, "line": line}

    def show(self, name: str) -> None:
        """Raises InputError: the image is no CT, or has no such window."""
        found = next((window for window in self._offered if window.name == name), None)
        if found is None:
            raise InputError(
                f"The image is not known to be a CT, so the window {name} means nothing for it.",
                "Nothing was changed.",
                "Drag with the left button in a slice view to change brightness and contrast.",
            )
        self._desk.workflow.windows.show(found)

    def reset(self) -> None:
        """Show the image by its own values."""
        if self._seen is not None:
            self._seen.SetAutoWindowLevel(False)  # computed anew, also where it was automatic and has been dragged
            self._seen.SetAutoWindowLevel(True)

    @staticmethod
    def build() -> None:
        with v.VBtn(variant="text", size="small", v_if="window", title="Brightness and contrast"):
            v.VIcon("mdi-contrast-circle", start=True, size="small")
            html.Span("{{ window.name }}", classes="window-name", v_if="window.name")
            html.Span("{{ window.line }}", classes="window-line")
            with v.VMenu(activator="parent"), v.VList(density="compact", classes="menu"):
                with v.VListItem(
                    v_for="one in windows",
                    key="one.name",
                    click="trigger('show_window', [one.name])",
                    active=("one.name === window.name",),
                ):
                    html.Span("{{ one.name }}")
                    html.Span("{{ one.line }}", classes="window-line")
                    html.Kbd("{{ one.key }}", v_if="one.key")
                with v.VListItem(click="trigger('reset_window')"):
                    html.Span("By the image's own values")
                    html.Kbd(RESET_KEY.upper())


def _line(width: float, center: float) -> str:
    """ "W 400 L 40" """
    digits = 0 if abs(width) >= 10 else 3
    return f"W {width:.{digits}f} L {center:.{digits}f}"
