"""Keys, and the list of them."""

from __future__ import annotations

from collections.abc import Callable

from trame.widgets import html
from trame.widgets import vuetify3 as v

from .crosshair import KEY as CROSSHAIR_KEY
from .crosshair import Crosshair
from .desk import Desk
from .lengths import KEY as LENGTH_KEY
from .lengths import Lengths
from .parts import named
from .section_edit import EditSection
from .section_review import ReviewSection
from .section_segment import SegmentSection
from .values import flag, text
from .window_menu import KEYS as WINDOW_KEYS
from .window_menu import RESET_KEY, WindowMenu

_STEPS = ("image", "segment", "review", "site", "tune")
# Key -> what it does, in the order in which they are listed.
KEYS = {
    "1 to 5": "go to a step",
    "6 to 0": "CT windows: abdomen, soft tissue, brain, lung, bone",
    RESET_KEY: "brightness by the image's own values",
    "s": "segment",
    "n": "next place to check",
    "m": "mark the slice under the pointer as right",
    "f": "apply to the rest",
    "d": "difference on and off",
    "y": "keep the new proposal",
    "a": "accept all proposed segments",
    "u": "uncertainty map on and off",
    "k": "kept-token map on and off",
    "p": "paint",
    "e": "erase",
    "c": "scissors",
    "t": "threshold",
    "i": "islands",
    "[  ]": "smaller or larger brush",
    "Escape": "no tool",
    "Control+z": "undo",
    "Control+y": "redo",
    "ArrowUp": "axial slice up",
    "ArrowDown": "axial slice down",
    "h": "hide and show the segments",
    CROSSHAIR_KEY: "crosshair on and off; Shift and the pointer move it",
    LENGTH_KEY: "measure a distance",
    "r": "fit all views",
    "?": "this list",
}
_TOOLS = {"p": "paint", "e": "erase", "c": "scissors", "t": "threshold", "i": "islands", "Escape": "none"}


class Shortcuts:
    """Turns keys into what the buttons do; the page's script leaves out keys that are typed into fields."""

    def __init__(
        self,
        desk: Desk,
        segment: SegmentSection,
        review: ReviewSection,
        window: WindowMenu,
        crosshair: Crosshair,
        lengths: Lengths,
    ) -> None:
        self._desk = desk
        edit = review.edit
        self._calls: dict[str, Callable[[], object]] = {
            "s": segment.start,
            "n": review.next_place,
            "m": review.follow.strips.mark,
            "f": review.follow.apply,
            "d": review.follow.toggle_difference,
            "y": review.follow.keep,
            "a": review.accept,
            "u": lambda: review.toggle_map("uncertainty"),
            "k": lambda: review.toggle_map("kept_tokens"),
            "Control+z": edit.undo,
            "Control+y": edit.redo,
            "ArrowUp": lambda: desk.views.scroll(1),
            "ArrowDown": lambda: desk.views.scroll(-1),
            "r": desk.views.fit,
            "[": lambda: edit.change_brush(-1),
            "]": lambda: edit.change_brush(1),
            "?": self._toggle_help,
            RESET_KEY: window.reset,
            "h": review.look.toggle_all,
            CROSSHAIR_KEY: crosshair.toggle,
            LENGTH_KEY: lengths.measure,
            **{key: self._with(window.show, name) for key, name in WINDOW_KEYS.items()},
            **{key: self._with(self._take(edit, lengths), name) for key, name in _TOOLS.items()},
            **{str(number): self._step(name) for number, name in enumerate(_STEPS, 1)},
        }
        desk.field("help", False, flag)
        desk.action("key", text(20))(self.press)

    def press(self, key: str) -> None:
        call = self._calls.get(key)
        if call is not None:
            call()

    def build(self) -> None:
        dialog = v.VDialog(v_model=("help",), max_width="36rem", raw_attrs=named("Keyboard shortcuts"))
        with dialog, html.Div(classes="help"):
            html.H2("Keyboard shortcuts", classes="part")
            with html.Div(classes="keys"):
                for key, what in KEYS.items():
                    html.Kbd(_shown(key))
                    html.Span(what)
            html.P(
                "Mouse in a slice view: the wheel scrolls. Dragging with the left button sets brightness (up and down) "
                "and contrast (left and right) while no tool is in hand; with the right button, or Ctrl + wheel, it "
                "zooms; with the middle button, or with Shift, it pans.",
                classes="hint",
            )

    def _toggle_help(self) -> None:
        self._desk.state.help = not self._desk.state.help

    @staticmethod
    def _take(edit: EditSection, lengths: Lengths) -> Callable[[str], None]:
        """One tool is in hand at a time."""

        def take(name: str) -> None:
            lengths.stop()
            edit.choose_effect(name)

        return take

    @staticmethod
    def _with(choose: Callable[[str], object], name: str) -> Callable[[], object]:
        return lambda: choose(name)

    def _step(self, name: str) -> Callable[[], object]:
        return lambda: setattr(self._desk.state, "step", name)


def _shown(key: str) -> str:
    shown = {"ArrowUp": "\u2191", "ArrowDown": "\u2193", "Escape": "Esc", "Control+z": "Ctrl Z", "Control+y": "Ctrl Y"}
    return shown.get(key, key.upper() if len(key) == 1 else key)
