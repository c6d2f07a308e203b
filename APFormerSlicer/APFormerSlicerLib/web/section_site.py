"""The fourth step: the site's data set, which takes in corrected cases and is what a model learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apformer.datasets import DuplicateCaseError
from apformer.errors import ConfigError, InputError
from apformer.memory import memory_limit
from apformer.names import find
from trame.widgets import html

from ..workflow import NOT_OUTLINED, NOT_THERE, OTHERS, CaseRow, Run
from .desk import Desk
from .importing import close
from .parts import button, heading, hint, select, text_field
from .values import flag, one_of, text

_PRIVATE = "site"  # folder of a session that was given none: it goes with the session
_OTHERS = {NOT_THERE: "are not in the image", NOT_OUTLINED: "were not outlined"}


class SiteSection:
    """Shows what `workflow.collecting` tells.

    Args:
        shared: the folder that the server was given for the site's cases; None: one in the session's private folder.
    """

    def __init__(self, desk: Desk, shared: Path | None) -> None:
        self._desk = desk
        self._folder = shared or desk.folder / _PRIVATE
        desk.state.update(
            {
                "site_ready": False,
                "site_shared": shared is not None,
                "site_labels": [],
                "lacking": "",
                "kinds_of_others": [{"title": title, "value": value} for value, title in _OTHERS.items()],
                "cases": [],
                "case_known": False,
                "problems": None,
            }
        )
        desk.field("patient", "", text())
        desk.field("who", desk.workflow.state.who, text())
        desk.field("others", NOT_THERE, one_of(OTHERS))
        desk.action("create_site")(self._create)
        desk.action("add_case", flag)(self._add)
        desk.action("open_case", one_of(lambda: [one["name"] for one in desk.state.cases]))(self._open)
        desk.action("check_site")(self._check)
        desk.on("who")(self._choose_who)
        desk.on("segments", "site_labels")(self._look_for_lacking)
        desk.workflow.collecting.changed.connect(self.refresh)
        desk.workflow.state.changed.connect(self._look_at_another)

    def open_existing(self) -> None:
        """Take the data set that is in the folder already; none is no error."""
        if self._folder.is_dir() and any(self._folder.iterdir()):
            self._desk.workflow.collecting.choose(self._folder)

    def refresh(self) -> None:
        desk = self._desk
        desk.state.problems = None
        try:
            rows, labels = desk.workflow.collecting.rows(), desk.workflow.collecting.dataset.labels
        except ConfigError as error:
            desk.state.site_ready = False
            desk.notices.error(error)
            return
        desk.state.site_ready = True
        desk.state.site_labels = [label.name for label in labels]
        desk.state.cases = [_row(row) for row in rows]

    # ---------------------------------------------------------------- what the user does

    def _create(self) -> None:
        workflow = self._desk.workflow
        workflow.collecting.create(self._folder, workflow.models.find(workflow.state.model))

    def _add(self, correct: bool = False) -> None:
        """Store the reviewed image; a known one is asked about, and added with `correct` after that."""
        desk = self._desk
        run = desk.workflow.collecting.add(
            desk.volume,
            desk.segmentation,
            patient=desk.state.patient or None,
            correct=correct,
            others=desk.state.others,
        )
        desk.notices.tell("Storing the case...", stays=True)
        run.ended.connect(self._tell_added)
        if run.over:
            self._tell_added(run)

    def _tell_added(self, run: Run) -> None:
        desk, added = self._desk, run.outcome
        desk.notices.clear("info")  # that it is being stored
        if added is None:
            if run.error is not None:
                desk.notices.error(run.error)
            return
        if added.known:
            desk.notices.error(DuplicateCaseError(added.case))
            desk.state.case_known = True
            return
        desk.state.case_known = False
        desk.state.patient = ""
        desk.notices.clear("error")
        desk.notices.tell(f"Stored as {added.case.name}, {added.case.status}.")
        desk.notices.warn(added.notes)

    def _open(self, name: str) -> None:
        desk = self._desk
        with memory_limit(desk.uploads.quota.reading_bytes):
            volume_node, _ = desk.workflow.collecting.open(name)
        try:
            desk.uploads.add_image(volume_node)
        except InputError:
            close(desk, volume_node)
            raise
        desk.views.show_volume(volume_node)
        desk.state.step = "review"

    def _check(self) -> None:
        self._desk.state.problems = [problem.as_dict() for problem in self._desk.workflow.collecting.problems()]

    def _choose_who(self) -> None:
        self._desk.workflow.state.who = self._desk.state.who.strip()

    def _look_at_another(self) -> None:
        """What was asked was about another image."""
        desk = self._desk
        desk.state.case_known = False
        if desk.state.site_ready:
            desk.state.others = desk.workflow.collecting.others(desk.volume)

    def _look_for_lacking(self) -> None:
        """Which structures of the table have no segment: what they are is asked."""
        desk = self._desk
        there = [one["name"] for one in desk.state.segments]
        desk.state.lacking = ", ".join(name for name in desk.state.site_labels if find(name, there) is None)

    # ---------------------------------------------------------------- what it looks like

    def build(self) -> None:
        with html.Div(v_if="!site_ready"):
            hint("A data set keeps corrected cases, so that a model can learn from them. There is none here yet.")
            hint("It begins with the labels of the chosen model.", v_if="model")
            hint("Choose a model first (step 2): its labels are the beginning.", v_else=True)
            hint("It is private to this session and is removed with it.", v_if="!site_shared")
            button(
                "Create a data set", "trigger('create_site')", "mdi-folder-plus-outline",
                color="primary", variant="flat", disabled=("!model",),
            )  # fmt: skip
        with html.Div(v_else=True):
            self._build_adding()
            self._build_cases()
            button("Next: fine-tune", "step = 'tune'", "mdi-arrow-right", key="5", color="primary", v_if="cases.length")

    def _build_adding(self) -> None:
        heading("Add the reviewed image")
        with html.Div(v_if="segments.length"):
            hint("{{ images.find((one) => one.id === image_id)?.name }}, with its {{ segments.length }} segments.")
            text_field("Patient ID, kept as a pseudonym; from DICOM when empty", "patient")
            text_field("Corrected by (optional)", "who")
            with html.Div(v_if="lacking"):
                hint("No segment has the name of {{ lacking }}.")
                select("Structures without a segment", "others", "kinds_of_others")
            button("Add the case", "trigger('add_case')", "mdi-plus", color="primary", variant="flat")
            button("Replace its labels", "trigger('add_case', [true])", v_if="case_known", color="warning")
        with html.Div(v_else=True):
            hint("Nothing to add yet: segment an image and accept what is right.")
            button("Go to review", "step = 'review'", "mdi-arrow-left", key="3")

    def _build_cases(self) -> None:
        heading("Cases")
        hint("No case yet.", v_if="!cases.length")
        with html.Table(classes="table clickable", v_if="cases.length"), html.Tbody():  # noqa: SIM117
            with html.Tr(v_for="one in cases", key="one.name", click="trigger('open_case', [one.name])",
                         title=("`Open ${one.name}. ${one.comment}`",)):  # fmt: skip
                with html.Td():
                    html.Button("{{ one.name }}", type="button")
                    html.Div("{{ one.labels }}", classes="row-line")
                with html.Td(classes=("`status ${one.status === 'completed' ? 'accepted' : one.status}`",)):
                    html.Div("{{ one.status }}")
                    html.Div("{{ one.date }}", classes="row-line")
        button("Check the data set", "trigger('check_site')", "mdi-clipboard-check-outline", v_if="cases.length")
        hint("Nothing stands out.", v_if="problems && !problems.length")
        with html.Div(
            v_for="one in problems || []",
            key="one.what",
            classes=("one.severity === 'blocks training' ? 'notice block error' : 'notice block warning'",),
        ):
            html.Div("{{ one.what }}", classes="notice-what")
            html.Div("{{ one.meaning }}")
            html.Div("{{ one.remedy }}", classes="notice-remedy")


def _row(row: CaseRow) -> dict[str, Any]:
    labels = ", ".join(f"{name} {volume:.2f} mL" for name, volume in row.volumes_ml.items()) or "no labels"
    return {
        "name": row.name,
        "status": row.status,
        "date": row.date[:10],
        "labels": labels + (f"; not outlined: {', '.join(row.unknown)}" if row.unknown else ""),
        "comment": row.comment,
    }
