"""The header: one button that segments and cancels, what to expect before, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
from apformer.commands.durations import in_words
from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..workflow import Batch, Choice, Followed, PreciousError, Run, Segmented, Workflow, every_frame, sentence
from ..workflow.runs import DONE, FAILED
from ..workflow.wording import device_in_words
from .collaborators import Asks, Install, Ui
from .estimate import Estimate
from .hints import Hints, quietly, show_text
from .jobs_table import JobsTable

DEVICES = ("auto", "cpu", "cuda", "mps")
PATIENCE_MS = 600  # after the last change, before the worker is asked what it would take
DRAGGED_MS = 200  # after a region moved last, before it is looked at: it is told of many times a second
KEPT = "kept_tokens"
Job = Run | Batch


class SegmentPanel:
    """The button, the bar and the line of state are about the chosen volume: its job may be this panel's or another's,
    at work or waiting. A batch of this panel takes their place while it runs. All other jobs stand in a table."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install) -> None:
        self._ui, self._workflow, self._asks, self._install = ui, workflow, asks, install
        self._hints = Hints()
        self._closed = False
        self._batch: Batch | None = None  # that is not over
        self._own: list[Run] = []  # whose errors are told in a window
        self._watched: dict[Run, Any] = {}  # every job of the scene that is not over -> the ID of its volume node
        self._said: dict[Any, str] = {}  # the ID of a volume node, None for none -> what came of its last job
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
        self._shortcuts = [_shortcut(ui.header, keys, self._toggle) for keys in ("Ctrl+Return", "Ctrl+Enter")]
        workflow.state.changed.connect(self.refresh)
        workflow.versions.changed.connect(lambda _name: self._forget_estimate())
        workflow.segmenting.jobs.changed.connect(self._jobs_changed)
        workflow.watch.closed.connect(self._forget_volumes)
        workflow.region.moved.connect(self._region_moved)
        self._table = JobsTable(ui.jobsTable, workflow.segmenting.jobs, self._own_run, workflow.worklist.asked_for)
        self._jobs_changed()
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
        self._show_job()

    @property
    def running(self) -> Job | None:
        """What the button cancels: a batch of this panel, or the job of the chosen volume, of whichever panel; None
        where it segments."""
        return self._batch or self._run_of_volume()

    def follow(self, job: Job) -> None:
        """Show the progress of a job of this panel, and how it ends."""
        self._cancel_estimate()
        if isinstance(job, Batch):
            self._batch = job
            job.changed.connect(lambda _job: self._show_job())
            job.ended.connect(self._batch_ended)
        else:
            self._own.append(job)
        if job.over:  # it may have ended before it could be followed
            self._tell(job, self._chosen_id()) if isinstance(job, Run) else self._batch_ended(job)
        self._show_job()

    def _show_job(self) -> None:
        """The bar and the line of state, the table of jobs, and the button."""
        if self._closed or self._workflow.watch.is_closing:
            return
        ui, job = self._ui, self.running
        ui.progressBar.setVisible(job is not None)
        ui.progressBar.setValue(0 if job is None else round(100 * job.fraction))
        if job is None:
            text = self._said.get(self._chosen_id(), "")
        else:
            text = _progress_line(job) if isinstance(job, Run) else _batch_line(job)
        show_text(ui.statusLabel, text)
        self._table.refresh()
        self._show_button()

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

    def _jobs_changed(self) -> None:
        """Watch what came; what ended tells of itself."""
        for job in self._workflow.segmenting.jobs.listed:
            if job.run not in self._watched and not job.run.over:
                self._watch(job.run, None if job.volume_node is None else job.volume_node.GetID())
        self._show_job()

    def _watch(self, run: Run, volume_id: Any) -> None:
        self._watched[run] = volume_id
        run.changed.connect(self._progressed)
        run.ended.connect(lambda run: self._ended(run, volume_id))

    def _progressed(self, run: Run) -> None:
        if run in self._watched:
            self._show_job()

    def _ended(self, run: Run, volume_id: Any) -> None:
        if run not in self._watched:  # the panel was closed
            return
        del self._watched[run]
        self._estimated = None  # memory and clocks are not what they were
        if not self._is_of_batch(run):
            self._tell(run, volume_id)
        self._show_job()

    def _tell(self, run: Run, volume_id: Any) -> None:
        """What came of it stands where its volume is chosen, and here and now unless a job is shown here."""
        if run.status == DONE:  # of a file, the work list tells
            text = _outcome_line(run.outcome)
        elif run.status == FAILED and run.error is not None:
            text = run.error.what
        else:
            text = _("Cancelled.") if run.error is None else sentence(run.error)
        chosen = self._chosen_id()
        self._said[volume_id] = text
        if chosen != volume_id and not self._workflow.worklist.asked_for(run):
            self._said[chosen] = text if chosen is None else f"{run.title}: {text}"
        if run in self._own:
            self._own.remove(run)
            if run.status == FAILED and run.error is not None:
                self._asks.error(run.error)

    def _forget_volumes(self) -> None:
        """After the scene was closed, the IDs of its nodes stand for others."""
        self._said = {None: self._said.get(None, "")}

    def _batch_ended(self, batch: Job) -> None:
        if batch is self._batch:
            self._batch, self._estimated = None, None
            self._said[self._chosen_id()] = _batch_summary(batch)
            self._show_job()

    def _is_of_batch(self, run: Run) -> bool:
        return self._batch is not None and any(item.run is run for item in self._batch.items)

    def _chosen_id(self) -> Any:
        volume = self._workflow.state.volume
        return None if volume is None else volume.GetID()

    def _run_of_volume(self) -> Run | None:
        volume = self._workflow.state.volume
        return None if volume is None else self._workflow.segmenting.run_of(volume)

    def _own_run(self) -> Run | None:
        """The job whose state stands in the header."""
        current = None if self._batch is None else self._batch.current
        return self._run_of_volume() if current is None else current.run

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
        self._workflow.segmenting.jobs.changed.disconnect(self._jobs_changed)
        self._workflow.region.moved.disconnect(self._region_moved)
        self._timer.stop()
        self._dragged.stop()
        self._closed, self._batch = True, None
        self._watched.clear()
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
    message = run.message or _("starting")
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


def _outcome_line(outcome: object) -> str:
    if isinstance(outcome, Segmented):
        return _result_line(outcome)
    return _followed_line(outcome) if isinstance(outcome, Followed) else ""


def _followed_line(done: Followed) -> str:
    """ "Learned from 2 corrected slices on CPU in 7.9 s." """
    if not done.gained:
        return " ".join(done.warnings)
    told = _("Learned from {corrections} on {device} in {time}.")
    if not done.adapted:  # outlines may have been interpolated only
        told = _("Followed {corrections} on {device} in {time}.")
    first = told.format(corrections=done.text, device=device_in_words(done.device), time=in_words(done.seconds))
    return " ".join([first, *done.warnings])


def _result_line(done: Segmented) -> str:
    """ "Done on CPU in 4.2 s. Liver 1512.3 mL." """
    first = _("Done on {device} in {time}.").format(device=device_in_words(done.device), time=in_words(done.seconds))
    volumes = ", ".join(f"{label} {ml:.1f} mL" for label, ml in done.volumes_ml.items())
    earlier = [name for name in done.written.replaced if name not in done.lost]  # of those lost, a warning tells
    replaced = _("Replaced the earlier {names}.").format(names=", ".join(earlier)) if earlier else ""
    return " ".join(filter(None, [first, f"{volumes}." if volumes else "", replaced, *done.warnings]))
