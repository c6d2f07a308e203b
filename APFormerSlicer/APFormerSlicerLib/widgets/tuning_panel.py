"""The page Fine-tune: what is to be learned, from which base, in what time, and for what speed."""

from __future__ import annotations

from typing import Any

from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..workflow import Choices, Workflow
from ..workflow.tuning import check_choices
from .collaborators import Asks, Install, Ui
from .estimate import Estimate
from .hints import Hints, quietly, show_text
from .labels_table import LabelsTable
from .pages import is_open, when_turned
from .segment_panel import DEVICES, fill_devices
from .training_panel import TrainingPanel

ADOPT = ("better", "always", "never")
ALL = 100  # percent on the slider: no pruning


class TuningPanel:
    """Keeps the choices in the state; the training itself is shown by the `TrainingPanel`."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install, shown: TrainingPanel) -> None:
        self._ui, self._workflow, self._asks, self._install, self._shown = ui, workflow, asks, install, shown
        self._hints = Hints()
        self._named = False  # whether the user wrote a name of their own
        self._labels = LabelsTable(ui, self._changed)
        self._estimate = Estimate(self.refresh)
        titles = (_("when it is better"), _("always"), _("never; I decide"))
        for title, value in zip(titles, ADOPT, strict=True):
            ui.adoptComboBox.addItem(title, value)
        fill_devices(ui.tuningDeviceComboBox)
        ui.baseComboBox.connect("activated(int)", self._choose_base)
        ui.nameEdit.connect("textEdited(QString)", self._name)
        ui.minutesSpinBox.connect("valueChanged(double)", self._changed)
        ui.keepSlider.connect("valueChanged(int)", self._changed)
        ui.adoptComboBox.connect("currentIndexChanged(int)", self._changed)
        ui.tuningDeviceComboBox.connect("currentIndexChanged(int)", self._changed)
        ui.estimateButton.connect("clicked(bool)", lambda *_: asks.attempt(self._ask_estimate))
        ui.tuneButton.connect("clicked(bool)", self._toggle)
        ui.resumeButton.connect("clicked(bool)", lambda *_: asks.attempt(lambda: self._start(resume=True)))
        when_turned(ui, self.refresh)
        workflow.state.changed.connect(self.refresh)
        workflow.collecting.changed.connect(self.refresh)
        workflow.versions.changed.connect(lambda _name: self.refresh())
        shown.ended.connect(lambda _training: self.refresh())
        self.refresh()

    # ---------------------------------------------------------------- showing

    def refresh(self, *_unused: Any) -> None:
        if self._workflow.watch.is_closing or not is_open(self._ui, self._ui.tuningPage):
            return
        ui, choices = self._ui, self._workflow.tuning.choices
        chosen = self._workflow.models.lasting_reference(self._workflow.state.model)
        self._list_bases(choices.base or ("" if choices.name else chosen))
        self._labels.offer(self._label_names(), self._base_labels())
        known = bool(choices.name)  # else nothing was kept yet, and what is typed must stay
        if known:
            widgets = (ui.nameEdit, ui.minutesSpinBox, ui.keepSlider, ui.adoptComboBox, ui.tuningDeviceComboBox)
            with quietly(*widgets):
                if ui.nameEdit.text.strip() != choices.name and not ui.nameEdit.hasFocus():
                    ui.nameEdit.setText(choices.name)
                ui.minutesSpinBox.setValue(choices.minutes)
                ui.keepSlider.setValue(ALL if choices.keep is None else round(100 * choices.keep))
                ui.adoptComboBox.setCurrentIndex(ADOPT.index(choices.adopt))
                row = DEVICES.index(choices.device) if choices.device in DEVICES else 0
                ui.tuningDeviceComboBox.setCurrentIndex(row)
            self._labels.show(choices.labels, choices.mapping, choices.replace)
            self._named = choices.name != _name_of(choices.base)
        elif not ui.nameEdit.text:
            with quietly(ui.nameEdit):
                ui.nameEdit.setText(_name_of(self._base()))
        self._show_buttons()

    def _list_bases(self, wanted: str) -> None:
        combo = self._ui.baseComboBox
        with quietly(combo):
            combo.clear()
            combo.addItem(_("none: from scratch"), "")
            for card in self._workflow.models.lasting():
                if card.problem is None:
                    combo.addItem(card.title, card.reference)
            combo.setCurrentIndex(max(0, combo.findData(wanted)))

    def _label_names(self) -> list[str]:
        if self._install.missing():
            return []
        try:
            return [label.name for label in self._workflow.collecting.dataset.labels]
        except APFormerError:  # no data set: the line of `check` says so
            return []

    def _show_buttons(self) -> None:
        ui, choices = self._ui, self._choices()
        ui.keepLabel.setText(_share(choices.keep))
        if self._shown.running:
            ui.tuneButton.setText(_("Cancel"))
            self._hints.allow(ui.tuneButton, (True, ""))
            wait = (False, _("Wait until the training is done, or cancel it."))
            for widget in (ui.resumeButton, ui.estimateButton):
                self._hints.allow(widget, wait)
            show_text(ui.tuningLabel, "")
            return
        ui.tuneButton.setText(_("Fine-tune"))
        checked = self._check(choices)
        self._hints.allow(ui.tuneButton, checked)
        self._hints.allow(ui.estimateButton, checked)
        self._hints.allow(ui.resumeButton, self._workflow.tuning.can_resume(choices.name) if checked[0] else checked)
        show_text(ui.tuningLabel, self._estimate.line if checked[0] else checked[1])

    def _check(self, choices: Choices) -> tuple[bool, str]:
        if self._install.missing():
            return False, _("The packages that read images are not installed yet. The first Segment does that.")
        if self._none_learned:
            return False, _("No label is checked. Check one or more.")
        return self._workflow.tuning.check(choices)

    # ---------------------------------------------------------------- choosing

    def _choices(self) -> Choices:
        """What the widgets say."""
        ui, learned = self._ui, self._labels.learned()
        keep = ui.keepSlider.value
        return Choices(
            name=ui.nameEdit.text.strip(),
            base=self._base(),
            labels=() if len(learned) == len(self._labels.names) else tuple(learned),
            mapping=self._labels.mapping(),
            replace=self._labels.drops,
            minutes=float(ui.minutesSpinBox.value),
            keep=None if keep >= ALL else keep / 100.0,
            device=DEVICES[max(0, ui.tuningDeviceComboBox.currentIndex)],
            adopt=ADOPT[max(0, ui.adoptComboBox.currentIndex)],
        )

    def _base(self) -> str:
        row = self._ui.baseComboBox.currentIndex
        return str(self._ui.baseComboBox.itemData(row) or "") if row >= 0 else ""

    def _base_labels(self) -> tuple[str, ...]:
        try:
            return self._workflow.models.find(self._base()).label_names if self._base() else ()
        except APFormerError:  # the line of `check` says so
            return ()

    @property
    def _none_learned(self) -> bool:
        return bool(self._labels.names) and not self._labels.learned()

    def _choose_base(self, *_unused: Any) -> None:
        if not self._named:
            with quietly(self._ui.nameEdit):
                self._ui.nameEdit.setText(_name_of(self._base()))
        self._labels.offer(self._label_names(), self._base_labels())
        self._changed()

    def _name(self, *_unused: Any) -> None:
        self._named = bool(self._ui.nameEdit.text.strip())
        self._changed()

    def _changed(self, *_unused: Any) -> None:
        """Keep what can be kept; half a name cannot, nor can no label at all: that stands for all of them."""
        self._estimate.cancel()  # it would be of other choices
        self._estimate.line = ""
        if self._none_learned:
            self._show_buttons()
            return
        choices = self._choices()
        try:
            check_choices(choices)
        except APFormerError:
            self._show_buttons()
            return
        if choices == self._workflow.tuning.choices:
            self._show_buttons()
        self._workflow.tuning.choices = choices  # the state tells of it, which shows the buttons

    # ---------------------------------------------------------------- acting

    def _ask_estimate(self) -> None:
        if not self._install.ensure(training=True):
            return
        self._estimate.follow(self._workflow.tuning.estimate(self._choices()), _("Measuring a few steps..."))
        self._show_buttons()

    def _toggle(self, *_unused: Any) -> None:
        if self._shown.running:
            self._workflow.tuning.cancel()
        else:
            self._asks.attempt(lambda: self._start(resume=False))

    def _start(self, resume: bool) -> None:
        if not self._install.ensure(training=True):
            return
        self._estimate.cancel()
        self._workflow.tuning.start(self._choices(), resume=resume)
        self.refresh()


def _share(keep: float | None) -> str:
    """What the slider says, in words."""
    if keep is None:
        return _("looks closely at all of the image")
    return _("looks closely at {percent} % of the image").format(percent=round(100 * keep))


def _name_of(reference: str) -> str:
    return reference.partition("@")[0]
