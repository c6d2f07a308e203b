"""The page Review: a slice is corrected, applied to the rest by the worker's own code, looked at, kept or undone.

With APFORMER_SCREENSHOTS=FOLDER pictures of every state are written there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.networks import registered
from APFormerSlicerLib.scene.difference import difference_of
from APFormerSlicerLib.scene.geometry import vtk_matrix
from APFormerSlicerLib.scene.slices import shown_slice
from bundle_samples import LABELS
from following_samples import GRID, Thresholds, a_patient, dice, save_thresholds, truth
from headless import matrix_of, redraw
from panel_samples import Shown, add_volume, is_seen, shown_panel

PATIENT = a_patient((9, 32, 32))
RIGHT = truth(PATIENT)
MODEL = "hippocampus-test"
PICTURES = os.environ.get("APFORMER_SCREENSHOTS")
LOOKS = [(f"{width}x{height}{'-dark' * dark}", (width, height), dark)
         for width, height in ((340, 540), (480, 870)) for dark in (False, True)]  # fmt: skip


class Case:
    """A panel with a patient whom the model reads wrongly, segmented and on the page Review."""

    def __init__(self, shown: Shown) -> None:
        import slicer

        self.shown, self.ui, self.following = shown, shown.ui, shown.workflow.following
        self.volume = add_volume(shown.host.scene, PATIENT.array, "Cine MR")
        self.volume.SetIJKToRASMatrix(vtk_matrix(GRID))
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        shown.choose(self.volume, MODEL)
        self.ui.segmentButton.click()
        shown.answer()
        shown.open("reviewPage")
        self.settle()

    def settle(self) -> None:
        """Longer than the page waits for the end of a stroke."""
        self.shown.host.settle(0.7)

    @property
    def node(self) -> Any:
        return self.shown.workflow.state.segmentation

    @property
    def labels(self) -> np.ndarray:
        from APFormerSlicerLib.scene import to_label_map

        return to_label_map(self.node, self.volume, LABELS[:1]).array

    def draw(self, *slices: int) -> None:
        """These slices as they really are, as an effect of the Segment Editor does it."""
        labels = self.labels.copy()
        labels[list(slices)] = RIGHT[list(slices)]
        self.ui.segmentEditor.saveStateForUndo()
        redraw(self.node, self.node.GetSegmentation().GetNthSegmentID(0), labels, matrix_of(self.volume))
        self.settle()

    def go_to(self, number: int) -> None:
        """A click on the strip."""
        self.ui.sliceStrip.setCurrentCell(0, number)
        self.settle()

    def apply(self) -> None:
        self.ui.followButton.click()
        self.shown.worker.last.fields["seconds"] = 600  # a slow machine takes as many steps as a fast one
        self.shown.answer()
        self.settle()
        assert self.shown.asks.errors == []

    def picture(self, name: str) -> None:
        if PICTURES is None:
            return
        for folder, size, dark in LOOKS:
            (Path(PICTURES) / folder).mkdir(parents=True, exist_ok=True)
            self.shown.host.darken(dark)
            self.shown.window.resize(*size)
            self.settle()
            self.shown.host.picture(Path(PICTURES) / folder / name, self.shown.window)
        self.shown.host.darken(False)


@pytest.fixture
def a_case(a_slicer: Any, tmp_path: Path) -> Iterator[Case]:
    with registered("thresholds", Thresholds):
        save_thresholds(tmp_path / "models" / MODEL)
        library = ModelLibrary([tmp_path / "user", tmp_path / "models"])
        with shown_panel(a_slicer, tmp_path, models=library) as shown:
            yield Case(shown)


def kinds(case: Case) -> list[str]:
    """What the strip says of each slice."""
    table = case.ui.sliceStrip
    return [table.item(0, column).toolTip().partition(": ")[2] for column in range(table.columnCount)]


def marked(case: Case) -> list[int]:
    """Below which slices the strip has its mark."""
    import qt

    table = case.ui.sliceStrip
    items = [(column, table.item(1, column)) for column in range(table.columnCount)]
    return [column for column, item in items if item is not None and item.background().style() != qt.Qt.NoBrush]


def test_before_anything_is_corrected_the_button_says_what_to_do(a_case: Case) -> None:
    a_case.picture("follow-0-proposed.png")
    assert not a_case.ui.followButton.enabled
    assert "Correct a slice, or mark one as right" in a_case.ui.followButton.toolTip
    assert a_case.ui.followLabel.text == "no corrections" and not a_case.ui.followedContents.isVisible()
    assert kinds(a_case) == ["proposed"] * 9


def test_without_a_segmentation_nothing_is_offered(a_slicer: Any, tmp_path: Path) -> None:
    with shown_panel(a_slicer, tmp_path) as shown:
        shown.open("reviewPage")
        for button in (shown.ui.followButton, shown.ui.rightButton):
            assert not button.enabled and "No segmentation is chosen" in button.toolTip
        assert not shown.ui.stripContents.isVisible()


def test_a_click_on_the_strip_goes_to_the_slice_and_the_button_marks_it(a_case: Case) -> None:
    a_case.go_to(3)
    assert shown_slice(a_case.volume, 0) == 3 and marked(a_case) == [3]
    a_case.ui.rightButton.click()
    a_case.settle()
    assert kinds(a_case)[3] == "marked as right" and a_case.ui.rightButton.checked
    assert a_case.ui.followLabel.text == "1 corrected slice" and a_case.ui.followButton.enabled
    a_case.go_to(4)
    assert not a_case.ui.rightButton.checked
    a_case.go_to(3)
    a_case.ui.rightButton.click()
    a_case.settle()
    assert kinds(a_case)[3] == "proposed" and not a_case.ui.followButton.enabled


def test_the_strip_follows_the_slice_view(a_case: Case) -> None:
    a_case.go_to(3)
    view = a_case.shown.host.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    view.JumpSliceByOffsetting(-16.0, -16.0, 4.0 * 6)
    a_case.settle()
    assert marked(a_case) == [6]


def test_another_plane_has_slices_of_its_own(a_case: Case) -> None:
    combo = a_case.ui.planeComboBox
    assert [combo.itemText(row) for row in range(combo.count)] == ["Axial", "Coronal", "Sagittal"]
    assert combo.currentText == "Axial"  # across which voxels are the longest
    combo.setCurrentIndex(2)
    assert a_case.ui.sliceStrip.columnCount == 32
    a_case.go_to(10)
    a_case.ui.rightButton.click()
    a_case.settle()
    assert a_case.following.corrected(a_case.node).right[2] == {10}


def test_a_stroke_is_seen_on_the_strip(a_case: Case) -> None:
    a_case.draw(5)
    assert kinds(a_case)[5] == "drawn on" and a_case.ui.followLabel.text == "strokes on 1 slice"


def test_one_slice_is_corrected_applied_looked_at_and_kept(a_case: Case) -> None:
    ui = a_case.ui
    a_case.draw(4)
    a_case.go_to(4)
    ui.rightButton.click()
    a_case.settle()
    a_case.picture("follow-1-corrected.png")
    before = a_case.labels
    ui.followButton.click()
    a_case.shown.worker.last.progress(0.4, "learning")
    a_case.settle()
    assert ui.segmentButton.text == "Cancel" and "learning" in ui.statusLabel.text and not ui.followButton.enabled
    a_case.picture("follow-2-learning.png")
    a_case.shown.worker.last.fields["seconds"] = 600
    a_case.shown.answer()
    a_case.settle()
    a_case.picture("follow-3-proposal.png")
    after, rest = a_case.labels, [0, 1, 2, 3, 5, 6, 7, 8]
    assert np.array_equal(after[4], RIGHT[4])
    assert dice(after[rest], RIGHT[rest]) > dice(before[rest], RIGHT[rest]) + 0.05
    added = np.count_nonzero((after > 0) & (before == 0)) * 0.004
    assert ui.followedLabel.text == f"+{added:.1f} -0.0 mL"
    assert ui.followedLabel.toolTip == f"anterior: {added:.1f} mL added, 0.0 mL removed"
    assert not ui.followButton.enabled and "All corrections were applied already" in ui.followButton.toolTip
    assert ui.statusLabel.text.startswith("Learned from 1 corrected slice on CPU")
    difference = difference_of(a_case.node)
    assert difference.GetDisplayNode().GetVisibility()
    ui.differenceCheckBox.click()
    assert not difference.GetDisplayNode().GetVisibility()
    places = ui.placesLabel.text
    assert ui.nextPlaceButton.enabled
    ui.nextPlaceButton.click()
    a_case.settle()
    assert ui.placesLabel.text != places
    ui.keepFollowedButton.click()
    a_case.settle()
    assert not ui.followedContents.isVisible() and difference_of(a_case.node) is None
    assert np.array_equal(a_case.labels, after)
    a_case.picture("follow-4-kept.png")


def test_the_next_patients_of_today_are_segmented_with_what_was_learned(a_case: Case) -> None:
    ui = a_case.ui
    a_case.draw(4)
    a_case.apply()
    ui.todayCheckBox.click()
    a_case.picture("follow-7-for-today.png")
    ui.keepFollowedButton.click()
    a_case.settle()
    assert ui.modelComboBox.currentText == f"{MODEL} 1.0.0+followed (for today)" and not ui.todayCheckBox.checked
    assert a_case.shown.asks.errors == []
    a_case.shown.open("tuningPage")
    bases = [ui.baseComboBox.itemText(row) for row in range(ui.baseComboBox.count)]
    assert not any("for today" in base for base in bases) and ui.baseComboBox.currentText == f"{MODEL} 1.0.0"
    ui.segmentButton.click()
    assert Path(a_case.shown.worker.last.fields["model"]).name == "model"


def test_undo_brings_back_the_segments_and_the_segment_editor_can_undo_that(a_case: Case) -> None:
    a_case.draw(4)
    before = a_case.labels
    a_case.apply()
    after = a_case.labels
    assert not np.array_equal(after, before)
    a_case.ui.undoFollowedButton.click()
    a_case.settle()
    assert np.array_equal(a_case.labels, before) and not a_case.ui.followedContents.isVisible()
    assert a_case.ui.followLabel.text == "strokes on 1 slice" and a_case.ui.followButton.enabled
    a_case.ui.segmentEditor.undo()
    a_case.settle()
    assert np.array_equal(a_case.labels, after)


def test_the_segment_editors_own_undo_ends_the_preview(a_case: Case) -> None:
    a_case.draw(4)
    before = a_case.labels
    a_case.apply()
    a_case.ui.segmentEditor.undo()
    a_case.settle()
    assert np.array_equal(a_case.labels, before) and not a_case.ui.followedContents.isVisible()
    assert difference_of(a_case.node) is None and a_case.ui.followLabel.text == "strokes on 1 slice"


def test_corrections_of_a_second_round_are_added(a_case: Case) -> None:
    a_case.go_to(4)
    a_case.draw(4)
    a_case.ui.rightButton.click()
    a_case.settle()
    a_case.apply()
    a_case.draw(7)
    a_case.go_to(7)
    a_case.ui.rightButton.click()
    a_case.settle()
    assert a_case.ui.followLabel.text == "2 corrected slices"
    a_case.picture("follow-5-second-round.png")
    a_case.apply()
    assert np.array_equal(a_case.labels[[4, 7]], RIGHT[[4, 7]])


def test_where_nothing_is_gained_that_is_said_and_nothing_moves(a_case: Case) -> None:
    labels = a_case.labels.copy()
    labels[2], labels[4] = truth(PATIENT, (1.6,))[2], RIGHT[4]
    redraw(a_case.node, a_case.node.GetSegmentation().GetNthSegmentID(0), labels, matrix_of(a_case.volume))
    for number in (2, 4):
        a_case.go_to(number)
        a_case.ui.rightButton.click()
    a_case.settle()
    a_case.apply()
    assert "Nothing would be gained" in a_case.ui.statusLabel.text and not a_case.ui.followedContents.isVisible()
    assert np.array_equal(a_case.labels, labels)
    a_case.picture("follow-6-nothing-gained.png")


def test_a_job_is_cancelled_in_the_header(a_case: Case) -> None:
    a_case.draw(4)
    before = a_case.labels
    a_case.ui.followButton.click()
    a_case.ui.segmentButton.click()
    a_case.shown.worker.last.tell("cancelled")
    a_case.settle()
    assert a_case.ui.statusLabel.text == "Cancelled." and np.array_equal(a_case.labels, before)
    assert a_case.ui.followButton.enabled


def test_a_failed_job_is_told_in_a_window(a_case: Case) -> None:
    from apformer.jobs import JobError

    a_case.draw(4)
    a_case.ui.followButton.click()
    a_case.shown.worker.last.fail(JobError("The program that does the work was ended by SIGKILL.", "", "", None))
    a_case.settle()
    assert [error.what for error in a_case.shown.asks.errors] == [
        "The program that does the work was ended by SIGKILL."
    ]
    assert a_case.ui.followButton.enabled


def test_many_slices_share_cells_and_the_corrected_one_is_gone_to(a_slicer: Any) -> None:
    import qt
    from APFormerSlicerLib.widgets.strip import MOST, Strip

    table = qt.QTableWidget()
    went: list[int] = []
    strip = Strip(table, went.append)
    known = ["proposed"] * 500
    known[333] = "drawn"
    strip.show(known, 0)
    assert table.columnCount == MOST
    table.setCurrentCell(0, 333 * MOST // 500)
    assert went == [333] and "drawn on" in table.item(0, 333 * MOST // 500).toolTip()
    strip.show_current(499)
    assert table.currentColumn() == MOST - 1 and went == [333]
    strip.show_current(None)
    assert table.currentColumn() == -1


@pytest.mark.parametrize("size", [(340, 520), (480, 870)])
def test_all_of_it_is_seen_on_a_small_screen_while_a_proposal_waits(a_case: Case, size: tuple[int, int]) -> None:
    a_case.draw(4)
    a_case.apply()
    a_case.shown.window.resize(*size)
    a_case.settle()
    ui = a_case.ui
    for widget in (ui.followButton, ui.rightButton, ui.sliceStrip, ui.planeComboBox, ui.followedLabel,
                   ui.differenceCheckBox, ui.keepFollowedButton, ui.undoFollowedButton,
                   ui.todayCheckBox, ui.acceptButton):  # fmt: skip
        assert is_seen(widget, a_case.shown.window), widget.objectName
