"""The page Fine-tune, while it learns and after: progress, curves, pictures, and the decision."""

from __future__ import annotations

from typing import Any

from apformer.commands.durations import in_words
from slicer.i18n import tr as _

from ..workflow import Comparison, Signal, Training, Workflow, sentence
from ..workflow.runs import FAILED
from .changing import Changing
from .collaborators import Asks, Ui
from .curves import draw
from .hints import Hints, show_text
from .pictures import in_a_row
from .tables import fill, fit, stretch

PICTURES_WIDTH = 300  # pixels: what a panel of 340 has room for
MOST_PICTURES = 3
MOST_ROWS = 12  # of the comparison that are seen without scrolling in it


class TrainingPanel:
    """Follows the training of the workflow.

    Attributes:
        ended: the training is over.
    """

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, changing: Changing) -> None:
        self._ui, self._workflow, self._asks, self._changing = ui, workflow, asks, changing
        self.ended: Signal[Training] = Signal()
        self._hints = Hints()
        self._drawn = -1  # rows that the curves show
        self._pictured: list[Any] = []
        stretch(ui.comparisonTable, 0)
        ui.adoptButton.connect("clicked(bool)", lambda *_: asks.attempt(self._adopt))
        ui.keepOldButton.connect("clicked(bool)", lambda *_: asks.attempt(self._keep_old))
        workflow.tuning.started.connect(self._follow)
        workflow.versions.changed.connect(lambda _name: self._show_decision())
        changing.changed.connect(self._show_decision)
        show_text(ui.tuningStatusLabel, "")
        self._begin()

    @property
    def running(self) -> bool:
        training = self._workflow.tuning.training
        return training is not None and not training.run.over

    def _begin(self) -> None:
        for widget in (self._ui.tuningProgressBar, self._ui.curvesLabel, self._ui.overlaysLabel):
            widget.setVisible(False)
        self._show_decision()

    def _follow(self, training: Training) -> None:
        self._drawn, self._pictured = -1, []
        self._begin()
        self._ui.tuningViews.setCurrentWidget(self._ui.tuningProgress)
        training.changed.connect(self._show)
        training.run.ended.connect(lambda _run: self._end(training))
        self._show(training)

    def _show(self, training: Training) -> None:
        if training is not self._workflow.tuning.training:
            return
        ui, run = self._ui, training.run
        ui.tuningProgressBar.setVisible(not run.over)
        ui.tuningProgressBar.setValue(round(100 * run.fraction))
        if not run.over:
            show_text(ui.tuningStatusLabel, _progress(training))
        if len(training.rows) != self._drawn and training.rows:
            self._drawn = len(training.rows)
            palette = ui.curvesLabel.palette
            behind = palette.window().color()
            colors = training.colors((behind.red(), behind.green(), behind.blue()))
            ui.curvesLabel.setPixmap(draw(training.curves(), palette.windowText().color(), colors))
            ui.curvesLabel.setVisible(True)
        if training.overlays != self._pictured:
            self._pictured = list(training.overlays)
            row = in_a_row(self._pictured[:MOST_PICTURES], PICTURES_WIDTH)
            ui.overlaysLabel.setVisible(row is not None)
            if row is not None:
                ui.overlaysLabel.setPixmap(row)

    def _end(self, training: Training) -> None:
        if training is not self._workflow.tuning.training:
            return
        run, ui = training.run, self._ui
        ui.tuningProgressBar.setVisible(False)
        trained = training.trained
        if trained is not None:
            text = " ".join([_("Done: {model}.").format(model=trained.reference), *trained.warnings])
        elif run.status == FAILED and run.error is not None:
            text = run.error.what
            self._asks.error(run.error)
        else:
            text = _("Cancelled. Resume continues it.") if run.error is None else sentence(run.error)
        show_text(ui.tuningStatusLabel, text)
        self._show_decision()
        self.ended.emit(training)

    # ---------------------------------------------------------------- the decision

    def _show_decision(self) -> None:
        ui, training = self._ui, self._workflow.tuning.training
        trained = None if training is None else training.trained
        for widget in (ui.comparisonTable, ui.adoptButton, ui.keepOldButton):
            widget.setVisible(trained is not None)
        if trained is None:
            show_text(ui.decisionLabel, "")
            return
        keys, rows = comparison_rows(trained.comparison)
        fill(ui.comparisonTable, keys, rows, keys)
        fit(ui.comparisonTable, MOST_ROWS)
        show_text(ui.decisionLabel, trained.verdict)
        active, free = self._is_active(trained.reference), self._changing.check()
        adopt, keep = _("It is the active version already."), _("The old version is the active one.")
        self._hints.allow(ui.adoptButton, (not active, adopt) if free[0] else free)
        self._hints.allow(ui.keepOldButton, (active, keep) if free[0] else free)

    def _is_active(self, reference: str) -> bool:
        rows = self._workflow.versions.rows(reference.partition("@")[0])
        return any(row.active and row.card.reference == reference for row in rows)

    def _adopt(self) -> None:
        reference, why = self._workflow.tuning.require_trained().reference, "adopted by the user after fine-tuning"
        self._changing.begin(lambda: self._workflow.changes.adopt(reference, why))

    def _keep_old(self) -> None:
        name, why = self._workflow.tuning.require_trained().reference.partition("@")[0], "the user kept the old version"
        self._changing.begin(lambda: self._workflow.changes.roll_back(name, why))


_DICE = "{:.3f}"


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[tuple[str, str, str, str]]]:
    """Keys and texts: Dice and distance of each label, then what it costs."""
    keys, rows = [], []
    for label in comparison.rows:
        named = (
            (_("Dice, {label}").format(label=label.label), label.dice_before, label.dice_after, _DICE),
            (
                _("HD95 ({unit}), {label}").format(label=label.label, unit=label.unit),
                label.distance_before,
                label.distance_after,
                "{:.1f}",
            ),
        )
        for title, before, after, form in named:
            # no Dice is told too: that of a label which no validation case has
            if before is not None or after is not None or form == _DICE:
                keys.append(title)
                rows.append((title, *_figures(before, after, form)))
    for title, (before, after) in comparison.costs.items():
        if before is not None or after is not None:
            keys.append(title)
            rows.append((title, *_figures(before, after, _cost_form(before, after))))
    return keys, rows


def _cost_form(*values: float | None) -> str:
    """Three digits, and no powers of ten."""
    return "{:.0f}" if any(abs(value) >= 100 for value in values if value is not None) else "{:.3g}"


def _figures(before: float | None, after: float | None, form: str) -> tuple[str, str, str]:
    texts = ["-" if value is None else form.format(value) for value in (before, after)]
    change = "" if before is None or after is None else form.replace("{:", "{:+").format(after - before)
    return texts[0], texts[1], change


def _progress(training: Training) -> str:
    run = training.run
    if run.cancelling:
        return _("Cancelling...")
    parts = [run.message or training.step or _("starting")]  # the message names the epoch too
    if run.eta_s is not None:
        parts.append(_("about {time} left").format(time=in_words(float(run.eta_s))))
    return ", ".join(part for part in parts if part)
