"""Pieces that the sections of the page are drawn with, so that they look alike."""

from __future__ import annotations

from typing import Any

from trame.widgets import html
from trame.widgets import vuetify3 as v


def heading(text: str) -> None:
    html.H2(text, classes="part")


def hint(text: str, **attributes: Any) -> None:
    """One line that says what to do, or what it means."""
    html.P(text, classes="hint", **attributes)


def button(text: str, call: str, icon: str = "", key: str = "", **attributes: Any) -> None:
    """A button that runs a line of the page's script; `key` is its shortcut, which it shows."""
    settings = {"variant": "tonal", "size": "small", "classes": "mr-2 mb-2", **attributes}
    with v.VBtn(click=call, **settings):
        if icon:
            v.VIcon(icon, start=True, size="small")
        html.Span(text)
        if key:
            html.Kbd(key)


def pressed(expression: str) -> list[str]:
    """For `raw_attrs`: whether a button that stands for a choice is pressed, told to who does not see its colour."""
    return [f':aria-pressed="{expression}"']


def named(name: str) -> list[str]:
    """For `raw_attrs`: what an element without words of its own is called."""
    return [f'aria-label="{name}"']


_FIELD: dict[str, Any] = {"density": "compact", "variant": "outlined", "hide_details": True, "classes": "mb-3"}


def select(label: str, model: str, items: str, **attributes: Any) -> None:
    """A list to choose from; `model` and `items` are names of the page's state."""
    v.VSelect(
        v_model=(model,),
        items=(items,),
        label=label,
        **_FIELD,
        **attributes,
    )


def text_field(label: str, model: str, **attributes: Any) -> None:
    v.VTextField(
        v_model=(model,),
        label=label,
        **_FIELD,
        **attributes,
    )
