"""The page Review: what was corrected, applied to the rest of the volume, and kept or undone."""

from __future__ import annotations

from typing import Any

import qt
from apformer.errors import APFormerError
from apformer.following import Plane
from slicer.i18n import tr as _

from ..scene.difference import difference_of, show_difference
from ..scene.slices import go_to_slice, planes_of, shown_slice, slice_views, thickest
from ..workflow import Corrected, Followed, Workflow, sentence
from ..workflow.proposals import volume_of
from ..workflow.scene_watch import Observation
from .collaborators import Asks, Install, Ui
from .hints import Hints, quietly, show_text
from .review_panel import ReviewPanel
from .segment_panel import SegmentPanel
from .strip import Strip

PAUSE_MS = 60  # slice views tell of every pixel that they are scrolled


class FollowPanel:
    """Works on the segmentation that the state names, which the page Review shows; jobs are the header's to show."""

    def __init__(
        self, ui: Ui, workflow: Workflow, asks: Asks, install: Install, segment: SegmentPanel, review: ReviewPanel
    ) -> None:
        self._ui, self._workflow, self._asks, self._install, self._segment = ui, workflow, asks, install, segment
        self._hints = Hints()
        self._strip = Strip(ui.sliceStrip, self._go_to)
        self._tip = ui.followedLabel.toolTip
        self._corrected: Corrected | None = None  # what was known last
        self._of: Any = None  # of this segmentation
        self._difference = True  # whether the user wants to see it
        self._views: list[Observation] = []
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self._show_slice)
        ui.followButton.connect("clicked(bool)", lambda *_: asks.attempt(self._apply))
        ui.rightButton.connect("clicked(bool)", self._mark)
        ui.planeComboBox.connect("currentIndexChanged(int)", lambda *_: self._show_strip())
        ui.differenceCheckBox.connect("toggled(bool)", self._toggle_difference)
        ui.keepFollowedButton.connect("clicked(bool)", self._keep)
        ui.undoFollowedButton.connect("clicked(bool)", lambda *_: asks.attempt(self._undo))
        workflow.following.changed.connect(self._changed)
        workflow.segmenting.jobs.changed.connect(self.refresh)
        workflow.watch.closing.connect(self._let_go)
        review.shown.connect(self.refresh)
        self.refresh()

    # ---------------------------------------------------------------- showing

    def refresh(self, *_unused: Any) -> None:
        """Show what was corrected of the segmentation that the state names."""
        if self._workflow.watch.is_closing:
            return
        node, following = self._node, self._workflow.following
        if node is not self._of:
            self._of, self._corrected = node, None
            self._choose_plane(node)
            self._watch_views()
        try:
            self._corrected = following.corrected(node) or self._corrected
            self._show_pending(following.pending(node))
        except APFormerError as error:
            self._corrected = None
            self._hints.allow(self._ui.followButton, (False, sentence(error)))
            self._show_pending(None)
        else:
            self._hints.allow(self._ui.followButton, following.check(node))
        self._show_text()
        self._show_strip()

    def _show_text(self) -> None:
        corrected = self._corrected
        text = "" if corrected is None or not corrected.by_model else corrected.text or _("no corrections")
        self._ui.followLabel.setText(text)
        show_text(self._ui.outlinedLabel, "" if corrected is None else corrected.outlines.says)

    def _show_pending(self, followed: Followed | None) -> None:
        ui = self._ui
        ui.followedContents.setVisible(followed is not None)
        if followed is None:
            return
        show_text(ui.followedLabel, _milliliters(followed))
        ui.followedLabel.setToolTip(_by_segment(followed) or self._tip)
        with quietly(ui.differenceCheckBox):
            ui.differenceCheckBox.setChecked(self._difference)
        ui.todayCheckBox.setVisible(followed.adapted)
        if difference_of(self._node) is not None:
            show_difference(self._node, self._difference)

    def _show_strip(self) -> None:
        ui, corrected = self._ui, self._corrected
        ui.stripContents.setVisible(corrected is not None)
        if corrected is None:
            self._hints.allow(ui.rightButton, (False, ui.followButton.toolTip))
            with quietly(ui.rightButton):
                ui.rightButton.setChecked(False)
            return
        axis = self._axis
        kinds = [corrected.kind(Plane(axis, number)) for number in range(corrected.shape_kji[axis])]
        self._strip.show(kinds, self._shown_slice())
        self._show_right()

    def _show_slice(self, *_unused: Any) -> None:
        """A slice view was scrolled."""
        if self._corrected is not None and not self._workflow.watch.is_closing:
            self._strip.show_current(self._shown_slice())
            self._show_right()

    def _show_right(self) -> None:
        """The button is pressed while the slice that is shown is marked."""
        number, button = self._shown_slice(), self._ui.rightButton
        missing = _("The slice view of this plane shows no slice of the volume.")
        assert self._corrected is not None
        if not self._corrected.by_model:
            missing = _("No model proposed anything here that could be right. What you outline stays as it is.")
        self._hints.allow(button, (number is not None and self._corrected.by_model, missing))
        with quietly(button):
            button.setChecked(number is not None and number in self._corrected.right[self._axis])

    # ---------------------------------------------------------------- acting

    def _apply(self) -> None:
        if self._install.ensure():
            self._segment.follow(self._workflow.following.start(self._node, self._workflow.state.device))

    def _mark(self, right: bool) -> None:
        number = self._shown_slice()
        if number is not None:
            plane = Plane(self._axis, number)
            self._asks.attempt(lambda: self._workflow.following.mark(self._node, plane, bool(right)))

    def _go_to(self, number: int) -> None:
        go_to_slice(volume_of(self._node), self._axis, number)

    def _toggle_difference(self, shown: bool) -> None:
        self._difference = bool(shown)
        show_difference(self._node, self._difference)

    def _keep(self, *_unused: Any) -> None:
        today = bool(self._ui.todayCheckBox.checked)
        self._ui.todayCheckBox.setChecked(False)  # each patient's is a decision of its own
        self._workflow.following.keep(self._node, today, self._asks.error)

    def _undo(self) -> None:
        self._workflow.following.undo(self._node, self._asks.error)

    # ---------------------------------------------------------------- in detail

    @property
    def _node(self) -> Any:
        return self._workflow.state.segmentation

    @property
    def _axis(self) -> int:
        return max(0, int(self._ui.planeComboBox.currentIndex))

    def _shown_slice(self) -> int | None:
        volume = volume_of(self._of)
        return None if volume is None else shown_slice(volume, self._axis)

    def _choose_plane(self, node: Any) -> None:
        """The planes of the volume, of which the one with the thickest slices is the first guess."""
        combo, volume = self._ui.planeComboBox, None if node is None else volume_of(node)
        titles = {"axial": _("Axial"), "coronal": _("Coronal"), "sagittal": _("Sagittal")}
        with quietly(combo):
            combo.clear()
            if volume is not None and volume.GetImageData() is not None:
                combo.addItems([titles[plane] for plane in planes_of(volume)])
                combo.setCurrentIndex(thickest(volume))

    def _watch_views(self) -> None:
        for view in self._views:
            view.stop()
        self._views = []
        if self._of is not None:
            scene = self._workflow.scene
            self._views = [Observation(view, "ModifiedEvent", self._scrolled) for view in slice_views(scene)]

    def _scrolled(self, *_unused: Any) -> None:
        self._timer.start()

    def _changed(self, node: Any) -> None:
        if node is self._node:
            self.refresh()

    def _let_go(self) -> None:
        self._timer.stop()
        self._of, self._corrected = None, None
        self._watch_views()

    def close(self) -> None:
        """The window is being closed."""
        self._workflow.segmenting.jobs.changed.disconnect(self.refresh)
        self._let_go()


def _milliliters(followed: Followed) -> str:
    """ "+0.8 -0.1 mL"; of pictures, which have no size, what was followed."""
    if not followed.added_ml:
        return followed.text
    added, removed = sum(followed.added_ml.values()), sum(followed.removed_ml.values())
    return str(_("+{added} -{removed} mL").format(added=f"{added:.1f}", removed=f"{removed:.1f}"))


def _by_segment(followed: Followed) -> str:
    """A line for each segment: "Liver: 0.8 mL added, 0.1 mL removed"."""
    line = _("{name}: {added} mL added, {removed} mL removed")
    return "\n".join(
        str(line.format(name=name, added=f"{added:.1f}", removed=f"{followed.removed_ml.get(name, 0.0):.1f}"))
        for name, added in followed.added_ml.items()
    )
