"""The work list in the panel: added, segmented while one reviews, accepted, stored and gone on with in one click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.datasets import identity
from apformer.files import write_scalar
from apformer.jobs import JobError
from apformer.volume import Volume
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (5, 6, 7)
DIED = JobError("It was ended by SIGKILL.", "Memory ran out.", "Close others.", None)
identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        panel.workflow.state.model = "slices"
        panel.unfold("workSection")
        yield panel


@pytest.fixture
def a_folder(shown: Shown, tmp_path: Path) -> Path:
    """Three MR images, which the user will choose."""
    folder = tmp_path / "Bilder 脳"
    folder.mkdir()
    for seed, name in enumerate(("Anna", "Bert", "Carl")):
        voxels = np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)
        write_scalar(folder / f"{name}.nii.gz", Volume(voxels, np.diag([-1.0, -1.0, 2.0, 1.0])))
    shown.asks.folders.append(folder)
    return folder


@pytest.fixture
def a_site(shown: Shown, tmp_path: Path) -> Any:
    return shown.workflow.collecting.create(tmp_path / "site", shown.workflow.models.find("slices"))


def rows(shown: Shown) -> list[tuple[str, ...]]:
    """The table as it is seen."""
    shown.host.settle(0.15)
    table = shown.ui.workTable
    return [tuple(table.item(row, column).text() for column in range(3)) for row in range(table.rowCount)]


def segment(shown: Shown, *doubts: float) -> None:
    shown.host.settle(0.15)
    shown.ui.workSegmentButton.click()
    finish(shown, *doubts)


def finish(shown: Shown, *doubts: float) -> None:
    for doubt in doubts:
        shown.worker.last.progress(0.5)
        shown.worker.last.finish(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.3)}, doubt=doubt)
    shown.host.settle(0.15)


def test_an_empty_list_says_what_to_do_and_why_nothing_can_be_pressed(shown: Shown) -> None:
    ui = shown.ui
    assert "Add loaded volumes, or a folder" in ui.workLabel.text and ui.oneVolumeContents.isHidden()
    for button in (ui.workSegmentButton, ui.workNextButton, ui.workRemoveButton, ui.workStoreButton):
        assert not button.enabled and button.toolTip, button
    assert ui.storeNextButton.isHidden()
    ui.workSection.collapsed = True
    assert not ui.oneVolumeContents.isHidden()


def test_loaded_volumes_are_added_and_segmented_with_their_state_in_the_table(shown: Shown) -> None:
    for name in ("one", "two"):
        add_volume(shown.host.scene, noise(), name)
    shown.host.settle(0.15)
    shown.ui.workAddButton.click()
    assert rows(shown) == [("one", "waiting", ""), ("two", "waiting", "")] and not shown.ui.workAddButton.enabled
    shown.ui.workSegmentButton.click()
    shown.worker.last.progress(0.3)
    assert rows(shown)[0] == ("one", "segmenting", "") and shown.ui.workSegmentButton.text == "Cancel"
    finish(shown, 0.234)
    shown.worker.last.fail(DIED)
    assert rows(shown) == [("one", "to review", "23 %"), ("two", "failed", "")]
    assert "SIGKILL" in shown.ui.workTable.item(1, 0).toolTip()
    assert shown.ui.workLabel.text == "0 of 2 stored, 1 to review, 1 failed."
    assert shown.asks.errors == []  # nobody is stopped by it


def test_a_second_click_cancels_what_runs_and_begins_no_other(shown: Shown, a_folder: Path) -> None:
    shown.ui.workFolderButton.click()
    shown.ui.workSegmentButton.click()
    shown.host.settle(0.15)
    shown.ui.workSegmentButton.click()
    shown.worker.last.tell("cancelled")
    assert {row[1] for row in rows(shown)} == {"waiting"} and len(shown.worker.asked) == 1


def test_a_day_of_a_folder_is_one_click_a_case(shown: Shown, a_folder: Path, a_site: Any) -> None:
    ui = shown.ui
    ui.workFolderButton.click()
    segment(shown, 0.2, 0.6, 0.4)
    assert ui.jobsTable.isHidden()  # the list tells
    ui.workOrderComboBox.setCurrentIndex(1)
    ui.workOrderComboBox.activated.emit(1)
    assert [row[0] for row in rows(shown)] == ["Bert", "Carl", "Anna"]
    ui.workNextButton.click()
    shown.host.settle(0.15)
    assert ui.pages.currentWidget() is ui.reviewPage and ui.volumeSelector.currentNode().GetName() == "Bert"
    assert rows(shown)[0] == ("Bert", "> to review", "60 %") and ui.workPatientEdit.placeholderText == "Bert"
    for name in ("Bert", "Carl", "Anna"):
        assert shown.workflow.state.volume.GetName() == name and not ui.storeNextButton.isHidden()
        ui.storeNextButton.click()
        shown.answer()
        shown.host.settle(0.15)
    assert {row[1] for row in rows(shown)} == {"stored"} and shown.workflow.state.volume is None
    assert "3 of 3 stored" in ui.workLabel.text and ui.storeNextButton.isHidden() and shown.asks.errors == []
    assert len(shown.workflow.collecting.rows()) == 3


def test_the_patient_of_a_loaded_volume_is_asked_for_and_not_kept_for_the_next(shown: Shown, a_site: Any) -> None:
    ui = shown.ui
    for name in ("one", "two"):
        add_volume(shown.host.scene, noise(), name)
    shown.host.settle(0.15)
    ui.workAddButton.click()
    segment(shown, 0.1, 0.2)
    ui.workNextButton.click()
    shown.host.settle(0.15)
    assert not ui.storeNextButton.enabled and "patient" in ui.storeNextButton.toolTip
    ui.workPatientEdit.setText("0815")
    assert ui.storeNextButton.enabled and ui.workStoreButton.enabled
    ui.workStoreButton.click()
    shown.answer()
    shown.host.settle(0.15)
    assert shown.workflow.state.volume.GetName() == "two" and ui.workPatientEdit.text == ""


def test_a_known_image_is_asked_about(shown: Shown, a_folder: Path, a_site: Any) -> None:
    ui = shown.ui
    (a_folder / "Bert.nii.gz").write_bytes((a_folder / "Anna.nii.gz").read_bytes())
    ui.workFolderButton.click()
    segment(shown, 0.2, 0.6, 0.4)
    ui.workNextButton.click()
    shown.host.settle(0.15)
    ui.storeNextButton.click()
    shown.answer()
    shown.asks.agrees = False
    ui.workPatientEdit.setText("Anna")
    ui.storeNextButton.click()
    shown.answer()
    assert "in the data set already" in shown.asks.questions[-1] and rows(shown)[1][1] == "> accepted"
    shown.asks.agrees = True
    ui.storeNextButton.click()
    shown.answer()  # known
    shown.answer()  # replaced
    assert rows(shown)[1][1] == "stored" and shown.workflow.state.volume.GetName() == "Carl"


def test_a_case_that_cannot_be_stored_is_told_and_stays(shown: Shown, a_folder: Path, a_site: Any) -> None:
    shown.ui.workFolderButton.click()
    segment(shown, 0.2, 0.6, 0.4)
    shown.ui.workNextButton.click()
    shown.host.settle(0.15)
    shown.ui.storeNextButton.click()
    shown.worker.last.fail(DIED)
    assert [error.what for error in shown.asks.errors] == [DIED.what] and rows(shown)[0][1] == "> accepted"


def test_rows_are_opened_by_a_double_click_and_taken_off_the_list(shown: Shown, a_folder: Path) -> None:
    ui = shown.ui
    ui.workFolderButton.click()
    rows(shown)
    ui.workTable.cellDoubleClicked.emit(2, 0)
    shown.host.settle(0.15)
    assert shown.workflow.state.volume.GetName() == "Carl"
    ui.workTable.selectRow(0)
    assert ui.workRemoveButton.enabled
    ui.workRemoveButton.click()
    assert [row[0] for row in rows(shown)] == ["Bert", "Carl"]


def test_a_folder_without_images_is_told(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shown.asks.folders = [tmp_path / "empty"]
    shown.ui.workFolderButton.click()
    assert "holds no image" in shown.asks.errors[0].what and rows(shown) == []
    shown.asks.folders = [None]
    shown.ui.workFolderButton.click()
    assert len(shown.asks.errors) == 1


def test_volumes_of_the_list_are_written_to_a_file_and_a_table(shown: Shown, a_folder: Path, tmp_path: Path) -> None:
    shown.ui.workFolderButton.click()
    segment(shown, 0.2, 0.6, 0.4)
    shown.asks.files = [tmp_path / "out" / "all"]
    shown.ui.workVolumesButton.click()
    lines = (tmp_path / "out" / "all.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 4 and lines[1].startswith("Anna,anterior,0.25") and "in all.csv" in shown.ui.workLabel.text
    assert "3 volumes are in the table APFormer volumes" in shown.ui.workLabel.text
    assert shown.host.scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_what_a_user_segments_meanwhile_is_told_and_the_list_goes_on(shown: Shown, a_folder: Path) -> None:
    shown.ui.workFolderButton.click()
    shown.ui.workSegmentButton.click()
    shown.choose(add_volume(shown.host.scene, noise(), "urgent"))
    shown.ui.segmentButton.click()
    assert not shown.ui.jobsTable.isHidden()  # it waits for the one of the list
    finish(shown, 0.3, 0.5)
    assert shown.ui.statusLabel.text.startswith("Done on CPU") and shown.ui.jobsTable.isHidden()
    finish(shown, 0.3)
    assert shown.ui.statusLabel.text.startswith("Done on CPU")
