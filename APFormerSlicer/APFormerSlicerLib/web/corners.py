"""What stands along the edges of a slice view: its name, directions, the slice, and what is under the pointer."""

from __future__ import annotations

from trame.widgets import html

SIDES = ("left", "right", "top", "bottom")


def build_corners(name: str, title: str) -> None:
    """The words of the view's readout and of `pointed` in the page's state; `name` is the view's.

    Letters are where they point to: an R at the left edge means that the patient's right is there.
    """
    html.Div(title, classes=f"view-name view-name-{name.lower()}")
    readout = f"readout_{name}"
    with html.Div(v_if=readout, classes="readout"):
        html.Div(f"{{{{ {readout}.slice }}}}", classes="readout-slice")
        for side in SIDES:
            html.Div(f"{{{{ {readout}.{side} }}}}", classes=f"side side-{side}")
        with html.Div(classes="scale", style=(f"{{ width: `${{{readout}.scale_percent}}%` }}",)):
            html.Span(f"{{{{ {readout}.scale }}}}")
    with html.Div(v_if=f"pointed?.view === '{name}'", classes="readout readout-pointed"):
        html.Div("{{ pointed.value }}", classes="readout-value")
        html.Div("{{ pointed.place }}")
        html.Div("{{ pointed.segments }}", v_if="pointed.segments")
