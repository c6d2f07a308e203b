"""The page Review: look where the network was unsure, correct, and accept or flag."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..scene import Status
from ..scene.surface import is_in_3d
from ..workflow import SegmentRow, Signal, Workflow, sentence
from ..workflow.places import places_of
from ..workflow.scene_watch import Observation
from .collaborators import Asks, Ui
from .editor import Editor
from .hints import Hints, quietly, show_text
from .pages import fold, when_turned
from .tables import fill, fit, selected, stretch
from .views_3d import Views3D

MAPS = {"uncertainty": "uncertaintyCheckBox", "kept_tokens": "keptMapCheckBox"}
MOST_ROWS = 4  # of the table of segments that are seen at once
PAUSE_MS = 500  # volumes are counted when a stroke of the brush is over, not while it is drawn


class ReviewPanel:
    """Works on the segmentation that the state names.

    Attributes:
        shown: it was shown anew: another one was chosen, or a person or a model changed it.
    """

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, editor: Editor) -> None:
        self._ui, self._workflow, self._asks, self._editor = ui, workflow, asks, editor
        self._hints, self._views = Hints(), Views3D()
        self.shown: Signal[()] = Signal()
        self._observed: Any = None
        self._observations: list[Observation] = []
        self._shown: str | None = None  # the map that lies over the image
        self._note = ""  # what is told of the segments in 3D
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self._show_all)
        stretch(ui.segmentsTable, 0)
        fold(ui.segmentsButton, ui.segmentsContents)
        when_turned(ui, self.refresh)
        for name, box in MAPS.items():
            getattr(ui, box).connect("toggled(bool)", lambda on, name=name: self._toggle_map(name, on))
        ui.show3DButton.connect("clicked(bool)", self._toggle_3d)
        ui.nextPlaceButton.connect("clicked(bool)", lambda *_: asks.attempt(self._next_place))
        ui.visitAgainButton.connect("clicked(bool)", lambda *_: asks.attempt(self._visit_again))
        ui.acceptButton.connect("clicked(bool)", lambda *_: asks.attempt(self._accept))
        ui.flagButton.connect("clicked(bool)", lambda *_: asks.attempt(self._flag))
        ui.commentEdit.connect("returnPressed()", lambda: asks.attempt(self._flag))
        workflow.state.changed.connect(self.refresh)
        workflow.segmenting.segmented.connect(lambda *_: self._soon())
        workflow.reviewing.changed.connect(lambda _node: self._soon())
        workflow.watch.closing.connect(self._let_go)
        workflow.watch.closed.connect(editor.come_back)
        workflow.watch.loaded.connect(editor.come_back)
        workflow.watch.removed.connect(self._forget)
        self.refresh()

    # ---------------------------------------------------------------- showing

    def refresh(self, *_: Any) -> None:
        """Show the segmentation that the state names."""
        if self._workflow.watch.is_closing:
            return
        state = self._workflow.state
        if state.segmentation is not self._observed:
            self._observe(state.segmentation)
            self._shown, self._note = None, ""
        self._editor.edit(state.segmentation, state.volume)
        self._show_all()

    def _show_all(self) -> None:
        if not self._workflow.watch.is_closing:
            self._show_segments()
            self.shown.emit()

    def _show_segments(self) -> None:
        node = self._workflow.state.segmentation
        reviewing, ui = self._workflow.reviewing, self._ui
        try:
            rows, maps = reviewing.rows(node), reviewing.maps(node)
        except APFormerError as error:
            fill(ui.segmentsTable, [], [])
            fit(ui.segmentsTable, MOST_ROWS)
            self._allow_all((False, sentence(error)))
            self._show_3d(None)
            show_text(ui.placesLabel, "")
            show_text(ui.reviewLabel, sentence(error))
            return
        texts = [(row.name, _ml(row.volume_ml), _status(row.status)) for row in rows]
        fill(ui.segmentsTable, [row.segment_id for row in rows], texts, [_tip(row) for row in rows])
        fit(ui.segmentsTable, MOST_ROWS)
        self._allow_all((bool(rows), _("The segmentation is empty.")))
        show_text(ui.reviewLabel, self._note if rows else _("The segmentation is empty."))
        self._show_maps(maps)
        self._show_3d(node)

    def _show_maps(self, maps: list[str]) -> None:
        ui = self._ui
        for name, box in MAPS.items():
            missing = _("There is no such map of this result. Ask for it on the page Segment, then segment again.")
            self._hints.allow(getattr(ui, box), (name in maps, missing))
            with quietly(getattr(ui, box)):
                getattr(ui, box).setChecked(name in maps and self._shown == name)
        self._show_places()

    def _show_places(self) -> None:
        ui = self._ui
        places = places_of(self._workflow.state.segmentation)
        if places is None:
            missing = (False, _("There is no map of uncertainty of this result."))
            self._hints.allow(ui.nextPlaceButton, missing)
            self._hints.allow(ui.visitAgainButton, missing)
            show_text(ui.placesLabel, "")
            return
        node, reviewing = self._workflow.state.segmentation, self._workflow.reviewing
        left, of = reviewing.left(node), len(places)
        self._hints.allow(ui.nextPlaceButton, (left > 0, _("All places were visited.")))
        self._hints.allow(ui.visitAgainButton, (left < of, _("No place was visited yet.")))
        text = _("{left} of {all} left").format(left=left, all=of) if of else _("nothing to check")
        show_text(ui.placesLabel, text)

    def _allow_all(self, checked: tuple[bool, str]) -> None:
        ui = self._ui
        widgets = [ui.acceptButton, ui.flagButton, ui.commentEdit, ui.show3DButton]
        widgets += [ui.volumesTableButton, ui.volumesCsvButton]
        if not checked[0]:
            widgets += [ui.nextPlaceButton, ui.visitAgainButton, ui.uncertaintyCheckBox, ui.keptMapCheckBox]
        for widget in widgets:
            self._hints.allow(widget, checked)

    # ---------------------------------------------------------------- acting

    def _toggle_map(self, name: str, on: bool) -> None:
        self._shown = name if on else None
        node = self._workflow.state.segmentation
        self._asks.attempt(lambda: self._workflow.reviewing.show_map(node, self._shown))
        self._show_all()

    def _toggle_3d(self, *_unused: Any) -> None:
        node = self._workflow.state.segmentation
        if node is not None:
            self._note = self._views.toggle(node)
            show_text(self._ui.reviewLabel, self._note)
        self._show_3d(node)

    def _show_3d(self, node: Any) -> None:
        """The button is pressed while the segments are in the 3D views, whoever put them there."""
        with quietly(self._ui.show3DButton):
            self._ui.show3DButton.setChecked(node is not None and is_in_3d(node))

    def _next_place(self) -> None:
        self._workflow.reviewing.next_place(self._workflow.state.segmentation)

    def _visit_again(self) -> None:
        self._workflow.reviewing.visit_again(self._workflow.state.segmentation)

    def _accept(self) -> None:
        self._workflow.reviewing.accept(self._workflow.state.segmentation, selected(self._ui.segmentsTable) or None)

    def _flag(self) -> None:
        chosen = selected(self._ui.segmentsTable) or None
        self._workflow.reviewing.flag(self._workflow.state.segmentation, self._ui.commentEdit.text, chosen)
        self._ui.commentEdit.clear()

    # ---------------------------------------------------------------- following edits

    def _observe(self, node: Any) -> None:
        for observation in self._observations:
            observation.stop()
        self._observed, self._observations = node, []
        if node is not None:
            kind = slicer.vtkSegmentation
            edits = (kind.SourceRepresentationModified, kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified)
            looks = (kind.ContainedRepresentationNamesModified, node.DisplayModifiedEvent)
            self._observations = [
                *(Observation(node, event, self._edited) for event in edits),
                *(Observation(node, event, self._looks_changed) for event in looks),
            ]

    def _edited(self, *_: Any) -> None:
        self._soon()

    def _looks_changed(self, *_: Any) -> None:
        if not self._workflow.watch.is_closing:
            self._show_3d(self._observed)

    def _soon(self) -> None:
        if not self._workflow.watch.is_closing:
            self._timer.start()

    def _forget(self, node: Any) -> None:
        self._views.forget(node)
        if node is self._observed and not self._workflow.watch.is_closing:
            self._observe(None)
            self._editor.edit(None, self._workflow.state.volume)
            self._soon()

    def _let_go(self) -> None:
        self._timer.stop()
        self._views.forget(self._observed)
        self._show_3d(None)
        self._observe(None)
        self._editor.let_go()

    def close(self) -> None:
        self._let_go()


def _ml(volume: float | None) -> str:
    """What is still counted has no number yet."""
    return "..." if volume is None else f"{volume:.1f}"


def _tip(row: SegmentRow) -> str:
    """All of a segment."""
    made = _("{segment}, made by {maker}").format(segment=row.name, maker=row.model or _("hand"))
    return "\n".join(filter(None, (made, row.comment)))


def _status(status: Status) -> str:
    return {
        Status.NOT_STARTED: _("not started"),
        Status.IN_PROGRESS: _("in progress"),
        Status.COMPLETED: _("completed"),
        Status.FLAGGED: _("flagged"),
    }[status]
