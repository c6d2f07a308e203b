"""The page: steps on the left, views on the right, the running job at the foot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trame.ui.vuetify3 import VAppLayout
from trame.widgets import html
from trame.widgets import vuetify3 as v

from .crosshair import Crosshair
from .desk import Desk
from .jobs_bar import JobsBar
from .lengths import Lengths
from .parts import button, named, pressed
from .readout import Readout
from .section_edit import EditSection
from .section_follow import FollowSection
from .section_image import ImageSection
from .section_review import ReviewSection
from .section_segment import SegmentSection
from .section_site import SiteSection
from .section_tune import TuneSection
from .shortcuts import Shortcuts
from .values import flag, one_of, whole
from .views import LAYOUTS
from .window_menu import WindowMenu

STEPS = (
    ("image", "Image"),
    ("segment", "Segment"),
    ("review", "Review"),
    ("site", "Cases"),
    ("tune", "Fine-tune"),
)
_THEME = {
    "theme": {
        "defaultTheme": "radiology",
        "themes": {
            "radiology": {
                "dark": True,
                "colors": {
                    "background": "#0e1217",
                    "surface": "#151b22",
                    "primary": "#4fa3c7",
                    "error": "#e0736d",
                    "warning": "#d9a552",
                    "success": "#6fb58a",
                },
            }
        },
    }
}


class Page:
    """Draws the sections; each drives its part of the workflow. `site`: see `SiteSection`."""

    def __init__(self, desk: Desk, site: Path | None = None) -> None:
        self._desk = desk
        desk.field("step", "image", one_of([name for name, _ in STEPS]))
        desk.field("ending", False, flag)
        self._jobs = JobsBar(desk)
        self._image = ImageSection(desk)
        self._segment = SegmentSection(desk, self._jobs)
        self._edit = EditSection(desk)
        self._follow = FollowSection(desk, self._jobs)
        self._crosshair = Crosshair(desk)
        self._review = ReviewSection(desk, self._edit, self._follow, self._crosshair)
        self._site = SiteSection(desk, site)
        self._tune = TuneSection(desk, self._jobs)
        self._window = WindowMenu(desk)
        self._readout = Readout(desk)
        self._lengths = Lengths(desk)
        self._shortcuts = Shortcuts(desk, self._segment, self._review, self._window, self._crosshair, self._lengths)
        desk.action("dismiss", whole(0, 1 << 53))(desk.notices.dismiss)
        desk.action("fit_views")(desk.views.fit)
        with VAppLayout(desk.server, vuetify_config=_THEME) as self.layout, html.Div(classes="page"):
            self._build_bar()
            with html.Div(classes="body"):
                with html.Div(classes="panel"):
                    self._build_steps()
                    with html.Div(classes="panel-scroll"):
                        self._build_notices()
                        self._build_sections()
                with html.Div(classes="views"):
                    desk.views.place(self.layout)
            self._jobs.build()
            self._shortcuts.build()
            self._build_end()
        self._image.refresh()
        self._segment.refresh(anew=True)
        desk.notices.guard(self._site.open_existing)()
        self._tune.refresh()

    def _build_bar(self) -> None:
        with html.Div(classes="bar"):
            html.Span("APFormer", classes="brand")
            html.Span("{{ images.find((one) => one.id === image_id)?.name || 'No image loaded' }}", classes="bar-image")
            v.VSpacer()
            self._window.build()
            for name, title in LAYOUTS.items():
                v.VBtn(
                    title,
                    click=f"view_layout = '{name}'",
                    active=(f"view_layout === '{name}'",),
                    raw_attrs=pressed(f"view_layout === '{name}'"),
                    variant="text",
                    size="x-small",
                )
            v.VBtn(
                icon="mdi-ruler",
                click="trigger('measure')",
                active=("measuring",),
                title="Measure a distance (L): click on both ends in a slice view",
                raw_attrs=pressed("measuring"),
                **_ICON,
            )
            v.VBtn(
                icon="mdi-delete-sweep-outline",
                click="trigger('remove_lengths')",
                v_if="lengths",
                title="Remove the measured distances",
                **_ICON,
            )
            v.VBtn(
                icon="mdi-crosshairs",
                click="trigger('toggle_crosshair')",
                active=("crosshair",),
                title="Crosshair (X); Shift and the pointer move it",
                raw_attrs=pressed("crosshair"),
                **_ICON,
            )
            v.VBtn(icon="mdi-fit-to-screen-outline", click="trigger('fit_views')", title="Fit all views (R)", **_ICON)
            v.VBtn(icon="mdi-keyboard-outline", click="help = true", title="Keyboard shortcuts (?)", **_ICON)
            v.VBtn(icon="mdi-logout", click="ending = true", title="End the session", **_ICON)

    def _build_steps(self) -> None:
        with html.Div(classes="steps"):
            for number, (name, title) in enumerate(STEPS, 1):
                with html.Button(
                    classes=(f"step === '{name}' ? 'step active' : 'step'",),
                    click=f"step = '{name}'",
                    type="button",
                    raw_attrs=pressed(f"step === '{name}'"),
                ):
                    html.Span(str(number), classes="step-number")
                    html.Span(title)

    @staticmethod
    def _build_end() -> None:
        """Who leaves a shared computer must be able to leave nothing on it."""
        dialog = v.VDialog(v_model=("ending",), max_width="28rem", raw_attrs=named("End the session?"))
        with dialog, html.Div(classes="help"):
            html.H2("End the session?", classes="part")
            html.P("Images, results and running jobs of this browser are removed from the server.")
            html.P("Download first what you want to keep.", classes="hint")
            button("End the session", "utils.apformer.end()", color="error", variant="flat")
            button("Go on", "ending = false")

    def _build_notices(self) -> None:
        with html.Div(
            v_for="notice in notices.filter((one) => !one.step || one.step === step)",
            key="notice.id",
            classes=("`notice ${notice.kind}`",),
            raw_attrs=[":role=\"notice.kind === 'error' ? 'alert' : 'status'\""],
        ):
            with html.Div():
                html.Div("{{ notice.what }}", classes="notice-what")
                html.Div("{{ notice.meaning }}", v_if="notice.meaning")
                html.Div("{{ notice.remedy }}", v_if="notice.remedy", classes="notice-remedy")
            v.VBtn(icon="mdi-close", click="trigger('dismiss', [notice.id])", title="Dismiss", **_ICON)

    def _build_sections(self) -> None:
        sections: dict[str, list[Any]] = {
            "image": [self._image],
            "segment": [self._segment],
            "review": [self._review],
            "site": [self._site],
            "tune": [self._tune],
        }
        for name, parts in sections.items():
            with html.Div(v_show=f"step === '{name}'"):
                for part in parts:
                    part.build()


_ICON = {"variant": "text", "size": "x-small"}
