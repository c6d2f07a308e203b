"""The fifth step: a model learns from the site's cases, and the user decides whether it is used."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable

from apformer.errors import APFormerError
from trame.widgets import html

from ..workflow import Choices, LabelRow, Run, Training
from .curves import BACKGROUND, charts
from .desk import Desk
from .jobs_bar import JobsBar
from .parts import button, heading, hint, select, text_field
from .values import one_of, one_of_numbers, some_of, text, typed_number

_SCRATCH = ""
_ALL = 0.0  # no budget: the new model is dense, whatever the base is
_SHARES = (0.7, 0.5, 0.3)
_LONGEST_NAME = 100  # characters
_LONGEST_MINUTES = 7 * 24 * 60
BUDGETS = [
    {"title": "All of them", "value": _ALL},
    *({"title": f"{share:.0%}", "value": share} for share in _SHARES),
]


class TuneSection:
    """Drives `workflow.tuning` and `workflow.versions`."""

    def __init__(self, desk: Desk, jobs: JobsBar) -> None:
        self._desk, self._jobs = desk, jobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._estimating: Run | None = None
        desk.state.update(
            {
                "bases": [],
                "budgets": BUDGETS,
                "tune_estimate": None,
                "can_resume": False,
                "charts": [],
                "tune_step": "",
                "comparison": [],
                "costs": [],
                "verdict": "",
                "trained": "",
                "trained_in_use": False,
                "versions": [],
                "can_roll_back": False,
                "deciding": False,
            }
        )
        desk.field("tune_base", _SCRATCH, one_of(lambda: [one["value"] for one in desk.state.bases]))
        desk.field("tune_name", "", text(_LONGEST_NAME))
        desk.field("tune_labels", [], some_of(lambda: desk.state.site_labels))
        desk.field("tune_minutes", 15, typed_number(0, _LONGEST_MINUTES))
        desk.field("tune_keep", _ALL, one_of_numbers((_ALL, *_SHARES)))
        desk.action("tune")(lambda: self.start())
        desk.action("continue_tuning")(lambda: self.start(resume=True))
        desk.action("adopt", one_of(self._references))(self._adopt)
        desk.action("keep_old")(self._keep_old)
        desk.action("roll_back")(self._roll_back)
        desk.on("tune_base")(self._choose_base)
        desk.on("step", "tune_name", "tune_labels", "tune_minutes", "tune_keep")(self._estimate)
        desk.workflow.versions.changed.connect(lambda _: self.refresh())
        desk.workflow.tuning.started.connect(self._follow)

    def refresh(self) -> None:
        """The models to begin with, and the versions of the one that is written."""
        desk = self._desk
        cards = [card for card in desk.workflow.models.lasting() if card.problem is None]
        desk.state.bases = [
            *({"title": card.title, "value": card.reference} for card in cards),
            {"title": "None: from scratch", "value": _SCRATCH},
        ]
        if not desk.state.tune_name and desk.workflow.state.model:
            desk.state.tune_base = desk.workflow.state.model.partition("@")[0]
            desk.state.tune_name = desk.state.tune_base
        self._list_versions()

    def _list_versions(self) -> None:
        desk, name = self._desk, self._desk.state.tune_name.strip()
        try:
            rows = desk.workflow.versions.rows(name) if name else []
        except APFormerError:  # a name that is being typed
            rows = []
        desk.state.versions = [
            {"reference": row.card.reference, "version": row.card.version, "origin": row.card.origin,
             "active": row.active, "date": (row.date or "")[:10]}
            for row in rows
        ]  # fmt: skip
        self._look_whether_in_use()
        desk.state.can_roll_back = bool(rows) and desk.workflow.versions.can_roll_back(name)[0]

    def _look_whether_in_use(self) -> None:
        """Whether the version that was trained is what its model's name stands for now, whatever it was before."""
        desk, trained = self._desk, self._desk.state.trained
        rows = desk.workflow.versions.rows(trained.partition("@")[0]) if trained else []
        desk.state.trained_in_use = any(row.active and row.card.reference == trained for row in rows)

    def _references(self) -> list[str]:
        """The versions that are shown, and the one that was trained."""
        return [*(one["reference"] for one in self._desk.state.versions), self._desk.state.trained]

    # ---------------------------------------------------------------- before

    def _choices(self) -> Choices:
        state = self._desk.state
        return Choices(
            name=state.tune_name.strip(),
            base=state.tune_base,
            labels=tuple(state.tune_labels),
            minutes=_number(state.tune_minutes),
            keep=state.tune_keep or None,
            device=self._desk.workflow.state.device,
            adopt="never",  # the user does, who has seen the table
        )

    def _choose_base(self) -> None:
        state = self._desk.state
        if state.tune_base:
            state.tune_name = state.tune_base.partition("@")[0]
        self._estimate()

    def _estimate(self) -> None:
        """Ask the worker whether it can run, each time something else was chosen."""
        desk = self._desk
        if desk.state.step != "tune" or not desk.state.site_ready:
            return
        if not desk.state.tune_name:
            self.refresh()
        self._list_versions()
        choices, tuning = self._choices(), desk.workflow.tuning
        ok, reason = tuning.check(choices)
        desk.state.can_resume = ok and tuning.can_resume(choices.name)[0]
        if self._estimating is not None:
            self._estimating.cancel()
            self._estimating = None
        if not ok:
            desk.state.tune_estimate = {"ok": False, "line": reason, "warnings": []}
        elif desk.state.training_job is None:
            desk.state.tune_estimate = {"ok": True, "line": "looking at the cases", "warnings": []}
            self._estimating = run = tuning.estimate(choices)
            run.ended.connect(self._tell_estimate)

    def _tell_estimate(self, run: Run) -> None:
        if run is not self._estimating:
            return
        self._estimating = None
        found = run.outcome
        self._desk.state.tune_estimate = (
            None if found is None else {"ok": found.ok, "line": found.line, "warnings": list(found.warnings)}
        )

    # ---------------------------------------------------------------- while it runs

    def start(self, resume: bool = False) -> None:
        desk = self._desk
        desk.notices.clear("error")
        training = desk.workflow.tuning.start(self._choices(), resume=resume)
        self._jobs.follow(training.run, "finetune")
        training.run.ended.connect(lambda _: self._estimate())

    def _follow(self, training: Training) -> None:
        self._desk.state.update({"charts": [], "comparison": [], "costs": [], "verdict": "", "trained": ""})
        training.changed.connect(self._show)

    def _show(self, training: Training) -> None:
        state, trained = self._desk.state, training.trained
        state.charts = charts(training.curves(), training.colors(BACKGROUND))
        state.tune_step = training.step
        if trained is None:
            state.comparison = _measured(training)
            return
        state.comparison = [_row(row) for row in trained.comparison.rows]
        state.costs = [
            {"title": title, "before": _cost(before), "after": _cost(after)}
            for title, (before, after) in trained.comparison.costs.items()
            if before is not None or after is not None
        ]
        rule = "By the rule it is better" if trained.better else "By the rule it is not better"
        state.verdict, state.trained = f"{rule}. {trained.why}", trained.reference
        self._list_versions()

    # ---------------------------------------------------------------- after

    def _adopt(self, reference: str) -> None:
        self._decide(
            lambda: self._desk.workflow.versions.adopt(reference, "adopted by the user"), f"{reference} is used now."
        )

    def _keep_old(self) -> None:
        training = self._desk.workflow.tuning.training
        if training is not None and training.trained is not None:
            trained = training.trained
            told = f"The version before stays in use; {trained.reference} is kept in the list."
            self._decide(lambda: self._desk.workflow.tuning.keep_old(trained), told)

    def _roll_back(self) -> None:
        name = self._desk.state.tune_name.strip()
        self._decide(
            lambda: self._desk.workflow.versions.roll_back(name, "rolled back by the user"),
            f"The version of {name} that was in use before is used again.",
        )

    def _decide(self, change: Callable[[], object], told: str) -> None:
        """Change what is active. A version is proved first, which needs torch: that is loaded beside the event loop."""

        async def do() -> None:
            desk = self._desk
            await asyncio.to_thread(importlib.import_module, "torch")
            with desk.state:
                try:
                    change()
                    desk.notices.tell(told)
                except APFormerError as error:
                    desk.notices.error(error)
                except Exception as error:  # noqa: BLE001  the page must stay usable
                    desk.notices.fault(error)
                desk.state.deciding = False

        if not self._desk.state.deciding:
            self._desk.state.deciding = True
            task = asyncio.create_task(do())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # ---------------------------------------------------------------- what it looks like

    def build(self) -> None:
        with html.Div(v_if="!cases.length"):
            hint("A model learns from the cases of the data set, and there is none yet.")
            button("Go to the cases", "step = 'site'", "mdi-arrow-left", key="4")
        with html.Div(v_else=True):
            self._build_choices()
            self._build_curves()
            self._build_comparison()
            self._build_versions()

    def _build_choices(self) -> None:
        heading("What is learned")
        select("Begin with", "tune_base", "bases")
        text_field("Name of the model", "tune_name")
        select("Labels (all, when empty)", "tune_labels", "site_labels", multiple=True, chips=True, closable_chips=True)
        with html.Div(classes="two"):
            text_field("Minutes", "tune_minutes", type="number", min="0.34", step="any")
            select("Tokens to keep", "tune_keep", "budgets")
        with html.Div(v_if="tune_estimate", classes=("tune_estimate.ok ? 'estimate' : 'estimate refused'",)):
            html.Div("{{ tune_estimate.line }}")
            html.Div("{{ warning }}", v_for="warning in tune_estimate.warnings", key="warning", classes="warning")
        button(
            "Fine-tune", "trigger('tune')", "mdi-school-outline", color="primary", variant="flat", size="large",
            block=True, disabled=("training_job || !tune_estimate?.ok",),
        )  # fmt: skip
        button("Continue the unfinished one", "trigger('continue_tuning')", v_if="can_resume && !training_job")

    def _build_curves(self) -> None:
        with html.Div(v_for="chart in charts", key="chart.title", classes="chart"):
            html.H2("{{ chart.title }}", classes="part")
            with html.Div(classes="chart-plot"):
                html.Span("{{ chart.top }}", classes="chart-top")
                html.Div(v_html="chart.svg")
            with html.Div(v_for="line in chart.lines", key="line.name", classes="chart-line"):
                html.Span(classes="swatch", style=("{ background: line.color }",))
                html.Span("{{ line.name }}")
                html.Span("{{ line.last }}", classes="number")
        hint("{{ tune_step }}", v_if="charts.length && training_job")

    def _build_comparison(self) -> None:
        with html.Div(v_if="comparison.length", classes="comparison"):
            heading("Before and after, on validation cases")
            with html.Table(classes="table"), html.Tbody():
                with html.Tr():
                    for title in ("", "Dice", "HD95"):
                        html.Td(title, classes="row-line number" if title else "")
                with html.Tr(v_for="one in comparison", key="one.label"):
                    html.Td("{{ one.label }}")
                    html.Td("{{ one.dice }}", classes="number")
                    html.Td("{{ one.distance }}", classes="number")
                with html.Tr(v_for="one in costs", key="one.title"):
                    html.Td("{{ one.title }}", classes="row-line")
                    html.Td("{{ one.before }} \u2192 {{ one.after }}", colspan=2, classes="number")
            with html.Div(v_if="trained"):
                hint("{{ verdict }}")
                with html.Div(v_if="trained_in_use"):
                    html.P("{{ trained }} is in use.", classes="in-use")
                    button("Back to the old", "trigger('keep_old')", "mdi-history", disabled=("deciding",))
                with html.Div(v_else=True):
                    hint("{{ trained }} is not in use: you decide.")
                    button("Adopt", "trigger('adopt', [trained])", "mdi-check", color="success", disabled=("deciding",))
                    button("Keep the old", "trigger('keep_old')", "mdi-close", disabled=("deciding",))

    def _build_versions(self) -> None:
        with html.Div(v_if="versions.length"):
            heading("Versions of {{ tune_name }}")
            with html.Table(classes="table versions"), html.Tbody():  # noqa: SIM117
                with html.Tr(v_for="one in versions", key="one.reference", classes=("one.active ? 'chosen' : ''",)):
                    with html.Td():
                        html.Div("{{ one.version }}")
                        html.Div("{{ one.origin }} {{ one.date }}", classes="row-line")
                    with html.Td(classes="number"):
                        html.Span("in use", v_if="one.active", classes="status accepted")
                        button("Use", "trigger('adopt', [one.reference])", v_else=True, size="x-small",
                               variant="text", classes="", disabled=("deciding",))  # fmt: skip
                        button("Download", "utils.apformer.download('model/' + encodeURIComponent(one.reference))",
                               size="x-small", variant="text", classes="")  # fmt: skip
            button("Roll back", "trigger('roll_back')", "mdi-history", disabled=("deciding",), v_if="can_roll_back")


def _row(row: LabelRow) -> dict[str, str]:
    return {
        "label": row.label,
        "dice": f"{_figure(row.dice_before)} \u2192 {_figure(row.dice_after)}",
        "distance": f"{_figure(row.distance_before, 1)} \u2192 {_figure(row.distance_after, 1)} {row.unit}",
    }


def _measured(training: Training) -> list[dict[str, str]]:
    """What is known of the table before the end."""
    before, after = training.measured.get("before", {}), training.measured.get("after", {})
    nothing = (None, None, "mm")
    rows = []
    for label in dict.fromkeys((*after, *before)):
        (dice, distance, unit), (new_dice, new_distance, _) = before.get(label, nothing), after.get(label, nothing)
        rows.append(_row(LabelRow(label, dice, new_dice, distance, new_distance, unit)))
    return rows


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.0f}"


def _cost(value: float | None) -> str:
    """Milliseconds, operations or a share, of which three digits mean something."""
    return _figure(value, 0 if value is not None and abs(value) >= 100 else 2)


def _number(text: object) -> float:
    """What was typed; 0 for anything else, which the check refuses in words."""
    try:
        return float(str(text))
    except ValueError:
        return 0.0
