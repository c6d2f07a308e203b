"""The last part of the review: what was corrected, applied to the rest of this patient, and a verdict on what came."""

from __future__ import annotations

from typing import Any

from apformer.errors import InputError
from trame.widgets import html
from trame.widgets import vuetify3 as v

from ..scene.difference import difference_of, show_difference
from ..workflow import Card, Corrected, Followed, sentence
from .desk import Desk
from .jobs_bar import JobsBar
from .parts import button, heading, hint
from .strips import KINDS, Strips
from .values import flag


class FollowSection:
    """Shows what `workflow.following` tells of the chosen segmentation."""

    def __init__(self, desk: Desk, jobs: JobsBar) -> None:
        self._desk, self._jobs, self.strips = desk, jobs, Strips(desk)
        self._waiting: Any = None  # the segmentation that is compared, to be applied at once then
        desk.state.follow = None
        desk.state.followed = None
        desk.field("also_today", False, flag)
        for name, call in (
            ("apply_to_rest", self.apply),
            ("keep_followed", self.keep),
            ("undo_followed", self.undo),
            ("toggle_difference", self.toggle_difference),
        ):
            desk.action(name)(call)
        desk.editing.connect(self.refresh)
        desk.workflow.state.changed.connect(self.refresh)
        desk.workflow.following.changed.connect(lambda _: self.refresh())
        desk.workflow.following.followed.connect(self._tell)
        desk.workflow.following.learned.connect(self._tell_learned)
        desk.workflow.segmenting.segmented.connect(lambda *_: self.refresh())
        desk.workflow.segmenting.jobs.changed.connect(self.refresh)

    # ---------------------------------------------------------------- what is there

    def refresh(self) -> None:
        """Ask what was corrected. While that is compared, the last answer stays, and nothing can be applied."""
        desk, node = self._desk, self._desk.segmentation
        if node is None:
            desk.state.follow = desk.state.followed = None
            self.strips.show(None)
            return
        following = desk.workflow.following
        desk.state.followed = self._followed_row(following.pending(node))
        try:
            corrected = following.corrected(node)
        except InputError as error:
            self._waiting = None
            desk.state.follow = {"ready": False, "line": sentence(error)}
            self.strips.show(None)
            return
        if corrected is None:
            desk.state.follow = {**(desk.state.follow or {"line": ""}), "ready": False}
            return
        desk.state.follow = self._follow_row(corrected)
        self.strips.show(corrected)
        waiting, self._waiting = self._waiting, None
        if waiting is node:
            desk.notices.guard(self._start)()

    def _follow_row(self, corrected: Corrected) -> dict[str, Any]:
        following, node = self._desk.workflow.following, self._desk.segmentation
        if following.run_of(node) is not None:
            return {
                "ready": False,
                "line": "A network learns. You may draw on elsewhere: that stays, and the result goes around it.",
            }
        ready, why_not = following.check(node)
        return {"ready": ready, "line": corrected.says if ready else why_not}

    def _followed_row(self, pending: Followed | None) -> dict[str, Any] | None:
        if pending is None:
            return None
        names = dict.fromkeys((*pending.added_ml, *pending.removed_ml))
        node = difference_of(self._desk.segmentation)
        return {
            "line": f"Followed {pending.text}.",
            "rows": [
                {"name": name, "added": _ml(pending.added_ml, name), "removed": _ml(pending.removed_ml, name)}
                for name in names
            ],
            "adapted": pending.adapted,
            "difference": node is not None,
            "shown": node is not None and bool(node.GetDisplayNode().GetVisibility()),
        }

    # ---------------------------------------------------------------- what the user does

    def apply(self) -> None:
        """Have the network learn, and propose the rest anew, as soon as it is known what was corrected."""
        following, node = self._desk.workflow.following, self._desk.segmentation
        if node is not None and following.corrected(node) is None:
            self._waiting = node
        else:
            self._start()

    def _start(self) -> None:
        desk = self._desk
        desk.notices.clear("error")
        desk.notices.clear("warning")
        self._jobs.follow(desk.workflow.following.start(desk.segmentation, desk.workflow.state.device), "follow")

    def keep(self) -> None:
        """Keep the new proposal, and what was learned for the next patients where the user wants it."""
        if self._desk.state.followed is None:
            return
        today, self._desk.state.also_today = self._desk.state.also_today, False  # each patient's is its own decision
        self._desk.workflow.following.keep(self._desk.segmentation, today, self._desk.notices.error)

    def undo(self) -> None:
        """Bring back what was there before the network followed."""
        if self._desk.state.followed is not None:
            self._desk.workflow.following.undo(self._desk.segmentation, self._desk.notices.error)

    def toggle_difference(self) -> None:
        node = self._desk.segmentation
        shown = None if node is None else difference_of(node)
        if shown is not None:
            show_difference(node, not shown.GetDisplayNode().GetVisibility())
            self.refresh()

    def _tell(self, _node: Any, done: Followed) -> None:
        self._desk.notices.warn(done.warnings)
        self._desk.state.step = "review"

    def _tell_learned(self, card: Card) -> None:
        self._desk.notices.tell(
            f"{card.title} is chosen for the next images until this session ends. It learned from this patient; "
            "nothing has measured it on others."
        )

    # ---------------------------------------------------------------- what it looks like

    def build(self) -> None:
        heading("The rest of this patient")
        hint(
            "Draw on slices, or mark them as right; the network learns from them and proposes the others anew. What it "
            "does not know, outline on two to five slices of one plane."
        )
        with html.Div(classes="legend"):
            for kind, title in KINDS.items():
                with html.Span():
                    html.Span(classes=f"swatch {kind}")
                    html.Span(title)
        with html.Div(v_if="follow", classes="always follow"):
            self._build_verdict()
            html.P("{{ follow.line }}", v_if="!followed || follow.ready || job", classes="hint")
            button(
                "Apply to the rest",
                "trigger('apply_to_rest')",
                "mdi-arrow-expand-vertical",
                key="F",
                color="primary",
                variant="flat",
                block=True,
                classes="",
                disabled=("!follow.ready || job",),
            )

    def _build_verdict(self) -> None:
        """What a new proposal changed, until it is kept or undone."""
        with html.Div(v_if="followed", classes="followed"):
            heading("A new proposal")
            hint("{{ followed.line }}")
            with html.Div(classes="changes"), html.Table(classes="table"), html.Tbody():  # noqa: SIM117
                with html.Tr(v_for="one in followed.rows", key="one.name"):
                    html.Td("{{ one.name }}")
                    html.Td("+{{ one.added }} mL", classes="number added")
                    html.Td("\u2212{{ one.removed }} mL", classes="number removed")
            v.VCheckbox(
                v_model=("also_today",),
                v_if="followed.adapted",
                label="Also for the next patients today",
                title="With Keep: what was learned segments the next images too, until this session ends.",
                density="compact",
                hide_details=True,
            )
            button("Keep", "trigger('keep_followed')", "mdi-check", key="Y", color="success")
            button("Undo", "trigger('undo_followed')", "mdi-undo")
            button(
                "Difference",
                "trigger('toggle_difference')",
                "mdi-layers-outline",
                key="D",
                v_if="followed.difference",
                active=("followed.shown",),
            )


def _ml(volumes: Any, name: str) -> str:
    return f"{volumes.get(name, 0.0):.2f}"
