"""What the colours of a map that lies over the image mean."""

from __future__ import annotations

from typing import Any

from trame.widgets import html

from ..scene.overlays import LOOKS

_STEPS = 9  # of a colour bar
_ENDS = {  # of the values that are shown: what the lowest and the highest mean
    "uncertainty": ("a little unsure", "as unsure as can be"),
    "kept_tokens": ("looked at closely", ""),
}


class Legends:
    """Reads the colours of each map where the views take them from."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene

    def all(self) -> dict[str, dict[str, str]]:
        """Map name -> "bar", a CSS gradient from the lowest value that is shown to 1, and what its ends mean."""
        return {name: self._legend(name) for name in LOOKS}

    def _legend(self, name: str) -> dict[str, str]:
        look, (low, high) = LOOKS[name], _ENDS[name]
        colors = self._scene.GetNodeByID(look.color)
        table = colors.GetLookupTable() or colors.GetColorTransferFunction()
        first, last = table.GetRange()
        values = [look.threshold + (1.0 - look.threshold) * step / (_STEPS - 1) for step in range(_STEPS)]
        if not high:  # it is there or not
            values = [1.0, 1.0]
        rgb = [_color(table, first + (last - first) * value) for value in values]
        stops = ", ".join("#" + "".join(f"{round(255 * part):02x}" for part in one) for one in rgb)
        return {"bar": f"linear-gradient(to right, {stops})", "low": low, "high": high}

    @staticmethod
    def build() -> None:
        with html.Div(v_if="map_shown"):
            html.Div(classes="legend-bar", style=("{ background: legends[map_shown].bar }",))
            with html.Div(classes="legend-ends"):
                html.Span("{{ legends[map_shown].low }}")
                html.Span("{{ legends[map_shown].high }}")


def _color(table: Any, value: float) -> list[float]:
    rgb = [0.0, 0.0, 0.0]
    table.GetColor(value, rgb)
    return rgb
