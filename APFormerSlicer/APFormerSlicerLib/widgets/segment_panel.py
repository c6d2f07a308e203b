"""Step 2: one button that segments and cancels, what to expect before, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
from apformer.commands.durations import in_words
from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..workflow import Batch, Choice, PreciousError, Run, Segmented, Workflow, every_frame, sentence
from ..workflow.runs import DONE, FAILED
from ..workflow.wording import device_in_words
from .collaborators import Asks, Install, Ui
from .estimate import Estimate
from .hints import Hints, quietly, show_text

DEVICES = ("auto", "cpu", "cuda", "mps")
PATIENCE_MS = 600  # after the last change, before the worker is asked what it would take
DRAGGED_MS = 200  # after a region moved last, before it is looked at: it is told of many times a second
KEPT = "kept_tokens"
Job = Run | Batch


class SegmentPanel:
    """Follows jobs: volumes, the frames of a sequence, or a batch. One is at work, the others wait in their order; the
    button is about the chosen volume."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install) -> None:
        self._ui, self._workflow, self._asks, self._install = ui, workflow, asks, install
        self._hints = Hints()
        self._followed: list[Job] = []  # in the order in which they were asked for
        self._estimate = Estimate(self._show_button_again)
        self._estimated: Any = None  # the choice that the line is about
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PATIENCE_MS)
        self._timer.connect("timeout()", self._ask_estimate)
        self._dragged = qt.QTimer()
        self._dragged.setSingleShot(True)
        self._dragged.setInterval(DRAGGED_MS)
        self._dragged.connect("timeout()", self._show_button_again)
        fill_devices(ui.deviceComboBox)
        ui.segmentButton.connect("clicked(bool)", self._toggle)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose_segmentation)
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._choose_device)
        ui.keptTokensCheckBox.connect("toggled(bool)", self._choose_maps)
        root = ui.segmentSection.parentWidget()
        self._shortcuts = [_shortcut(root, keys, self._toggle) for keys in ("Ctrl+Return", "Ctrl+Enter")]
        workflow.state.changed.connect(self.refresh)
        workflow.versions.changed.connect(lambda _name: self._forget_estimate())
        workflow.segmenting.jobs.changed.connect(self._show_button_again)
        workflow.region.moved.connect(self._region_moved)
        ui.progressBar.setVisible(False)
        show_text(ui.statusLabel, "")
        self.refresh()

    # ---------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show what the state says, and whether it can be segmented."""
        if self._workflow.watch.is_closing:
            return
        state, ui = self._workflow.state, self._ui
        with quietly(ui.segmentationSelector, ui.deviceComboBox, ui.keptTokensCheckBox):
            ui.segmentationSelector.setCurrentNode(state.segmentation)
            ui.deviceComboBox.setCurrentIndex(DEVICES.index(state.device) if state.device in DEVICES else 0)
            ui.keptTokensCheckBox.setChecked(KEPT in state.maps)
        self._show_button()

    @property
    def running(self) -> Job | None:
        """What the button cancels: a batch of this panel, or the job of the chosen volume, of whichever panel; None
        where it segments."""
        batch = next((job for job in self._followed if isinstance(job, Batch) and not job.over), None)
        volume = self._workflow.state.volume
        return batch or (None if volume is None else self._workflow.segmenting.run_of(volume))

    @property
    def _at_work(self) -> Job | None:
        """The job whose progress is shown."""
        return next((job for job in self._followed if not job.over), None)

    def follow(self, job: Job) -> None:
        """Show the progress of a job, once those before it are over, and how it ends."""
        self._followed.append(job)
        self._cancel_estimate()
        job.changed.connect(self._progressed)
        job.ended.connect(self._ended)
        if job.over:  # it may have ended before it could be followed
            self._ended(job)
        self._progressed(job)

    def _show_button(self) -> None:
        button, job = self._ui.segmentButton, self.running
        button.setText(_("Segment") if job is None else _("Cancel"))
        if job is not None:
            self._hints.allow(button, (True, ""))
            show_text(self._ui.preflightLabel, "")
            return
        choice = self._workflow.choice()
        checked = self._workflow.segmenting.check(choice)
        self._hints.allow(button, checked)
        if not checked[0]:
            self._cancel_estimate()
            show_text(self._ui.preflightLabel, checked[1])
        elif self._install.missing():
            show_text(self._ui.preflightLabel, _("The first use installs what is needed, once."))
        elif self._key(choice) == self._estimated:
            show_text(self._ui.preflightLabel, self._estimate.line)
        else:
            show_text(self._ui.preflightLabel, _("Estimating..."))
            self._timer.start()

    def _show_button_again(self) -> None:
        if not self._workflow.watch.is_closing:
            self._show_button()

    def _region_moved(self) -> None:
        self._dragged.start()  # anew

    def _progressed(self, job: Job) -> None:
        if job is not self._at_work:
            return
        bar = self._ui.progressBar
        bar.setVisible(not job.over)
        bar.setValue(round(100 * job.fraction))
        if not job.over:
            text = _progress_line(job) if isinstance(job, Run) else _batch_line(job)
            show_text(self._ui.statusLabel, text)
        self._show_button()

    def _ended(self, job: Job) -> None:
        if job not in self._followed:
            return
        self._followed.remove(job)
        self._ui.progressBar.setVisible(self._at_work is not None)
        self._estimated = None  # memory and clocks are not what they were
        if isinstance(job, Batch):
            show_text(self._ui.statusLabel, _batch_summary(job))
        elif job.status == DONE:
            show_text(self._ui.statusLabel, _result_line(job.outcome))
        elif job.status == FAILED and job.error is not None:
            show_text(self._ui.statusLabel, job.error.what)
            self._asks.error(job.error)
        else:
            show_text(self._ui.statusLabel, _("Cancelled.") if job.error is None else sentence(job.error))
        if not self._workflow.watch.is_closing:
            self._show_button()

    # ---------------------------------------------------------------- the estimate

    def _ask_estimate(self) -> None:
        choice = self._workflow.choice()
        if self.running is not None or self._workflow.watch.is_closing:
            return
        self._cancel_estimate()
        self._estimated = self._key(choice)
        try:
            self._estimate.follow(self._workflow.segmenting.estimate(choice), _("Estimating..."))
        except APFormerError as error:
            self._estimate.line = sentence(error)
        self._show_button()

    def _cancel_estimate(self) -> None:
        self._timer.stop()
        if self._estimate.cancel():
            self._estimated = None

    def _forget_estimate(self) -> None:
        self._estimated = None
        self._show_button()

    def _key(self, choice: Any) -> Any:
        volume, region = choice.volume_node, choice.roi_node  # their times are those of transforms above them, too
        image = None if volume is None else volume.GetImageData()
        voxels = None if image is None else (volume.GetID(), volume.GetMTime(), image.GetMTime())
        roi = None if region is None else (region.GetID(), region.GetMTime(), region.GetDisplayVisibility())
        return voxels, choice.model, roi, choice.device, choice.maps

    # ---------------------------------------------------------------- acting

    def _toggle(self, *_: Any) -> None:
        job = self.running
        if job is not None:
            job.cancel()
        elif self._ui.segmentButton.enabled:
            self._asks.attempt(self._start)

    def _start(self) -> None:
        if not self._install.ensure():
            return
        choice = self._workflow.choice()
        if self._ui.everyFrameCheckBox.checked and not self._ui.everyFrameCheckBox.isHidden():
            batch = Batch(self._workflow.segmenting, every_frame(choice))
            self.follow(batch)
            batch.start()
        else:
            self._cancel_estimate()  # the worker does one thing after another
            self._begin(choice)

    def _begin(self, choice: Choice) -> None:
        """Segment; where segments of a person would be replaced, only when the user agrees."""
        try:
            run = self._workflow.segmenting.start(choice)
        except PreciousError as error:
            meaning = _("The result would replace them. Undo in the Segment Editor brings them back.")
            if not self._asks.confirm(error.what, meaning, _("Replace")):
                return
            run = self._workflow.segmenting.start(replace(choice, overwrite=True))
        self.follow(run)

    def _choose_segmentation(self, node: Any) -> None:
        if not self._workflow.watch.is_closing:
            self._workflow.state.segmentation = node

    def _choose_device(self, row: int) -> None:
        self._workflow.state.device = DEVICES[max(0, row)]

    def _choose_maps(self, wanted: bool) -> None:
        others = [name for name in self._workflow.state.maps if name != KEPT]
        self._workflow.state.maps = [*others, KEPT] if wanted else others

    def close(self) -> None:
        self._workflow.segmenting.jobs.changed.disconnect(self._show_button_again)
        self._workflow.region.moved.disconnect(self._region_moved)
        self._timer.stop()
        self._dragged.stop()
        self._followed.clear()
        self._estimate.forget()


def fill_devices(combo: Any) -> None:
    """The processors that can be chosen, in the order of `DEVICES`."""
    titles = (_("Automatic"), _("CPU"), _("GPU (CUDA)"), _("Apple GPU (MPS)"))
    for title, device in zip(titles, DEVICES, strict=True):
        combo.addItem(title, device)


def _shortcut(widget: Any, keys: str, action: Callable[..., None]) -> Any:
    """Works wherever the focus is in the window, while the widget can be seen."""
    shortcut = qt.QShortcut(widget)
    shortcut.setKey(qt.QKeySequence(keys))
    shortcut.connect("activated()", action)
    return shortcut


def _progress_line(run: Run) -> str:
    if run.cancelling:
        return _("Cancelling...")
    message = run.message or _("waiting for the worker")
    if run.eta_s is None:
        return f"{run.title}: {message}"
    return _("{title}: {message}, about {time} left").format(
        title=run.title, message=message, time=in_words(float(run.eta_s))
    )


def _batch_line(batch: Batch) -> str:
    current = batch.current
    line = "" if current is None or current.run is None else _progress_line(current.run)
    return f"{batch.summary}. {line}"


def _batch_summary(batch: Batch) -> str:
    failed = [f"{item.title}: {item.reason}" for item in batch.items if item.status == FAILED]
    return "\n".join([f"{batch.summary}.", *failed])


def _result_line(done: Segmented) -> str:
    """ "Done on CPU in 4.2 s. Liver 1512.3 mL." """
    first = _("Done on {device} in {time}.").format(device=device_in_words(done.device), time=in_words(done.seconds))
    volumes = ", ".join(f"{label} {ml:.1f} mL" for label, ml in done.volumes_ml.items())
    earlier = [name for name in done.written.replaced if name not in done.lost]  # of those lost, a warning tells
    replaced = _("Replaced the earlier {names}.").format(names=", ".join(earlier)) if earlier else ""
    return " ".join(filter(None, [first, f"{volumes}." if volumes else "", replaced, *done.warnings]))
