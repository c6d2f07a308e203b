"""Charts of a training on the page: labels in the colours of their segments, losses in a palette of their own."""

from __future__ import annotations

from pathlib import Path

import APFormerSlicerLib.web as web
from APFormerSlicerLib.web.curves import BACKGROUND, charts

CURVES = {
    "loss: total": [(1, 2.0), (2, 1.0)],
    "Dice of Liver": [(1, 0.5), (2, 0.8)],
    "share of tokens kept": [(2, 0.3)],
}


def test_a_label_has_the_colour_of_its_segments_and_nothing_else_has() -> None:
    loss, shares = charts(CURVES, {"Dice of Liver": "#dd8265"})
    colors = {line["name"]: line["color"] for chart in (loss, shares) for line in chart["lines"]}
    assert colors["Dice of Liver"] == "#dd8265" and len(set(colors.values())) == 3
    assert 'stroke="#dd8265"' in shares["svg"] and "#dd8265" not in loss["svg"]


def test_colours_are_made_for_the_background_that_the_page_has() -> None:
    style = (Path(web.__file__).parent / "assets" / "page.css").read_text(encoding="utf-8")
    (plot,) = [line for line in style.splitlines() if line.startswith(".chart-plot {")]
    assert "background: #{:02x}{:02x}{:02x};".format(*BACKGROUND) in plot
