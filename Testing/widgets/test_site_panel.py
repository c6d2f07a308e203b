"""The page Cases: a data set is made, filled, opened again and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apformer.jobs import JobError
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (5, 12, 12)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        panel.open("casesPage")
        yield panel


@pytest.fixture
def a_site(shown: Shown, tmp_path: Path) -> Path:
    """Made by the button, in a folder with quotes and letters of another script."""
    shown.workflow.state.model = "slices"
    shown.asks.folders = [tmp_path / "site 'ü' 脳"]
    shown.ui.newSiteButton.click()
    return tmp_path / "site 'ü' 脳"


@pytest.fixture
def a_result(shown: Shown, a_site: Path) -> Any:
    shown.choose(add_volume(shown.host.scene, noise(SHAPE)))
    return shown.segment(a_block(SHAPE))


def cells(shown: Shown, column: int) -> list[str]:
    table = shown.ui.casesTable
    return [table.item(row, column).text() for row in range(table.rowCount)]


def names(shown: Shown) -> list[str]:
    return [text.partition("\n")[0] for text in cells(shown, 1)]


def add(shown: Shown, patient: str = "P 1") -> None:
    shown.ui.patientEdit.setText(patient)
    shown.ui.addCaseButton.click()
    store(shown)
    shown.host.settle(0.05)


def store(shown: Shown) -> None:
    """Let the worker do what it was asked; and again where the panel asked once more."""
    while (asked := shown.worker.last).job == "store" and shown.workflow.collecting.storing is not None:
        shown.answer()
        if shown.worker.last is asked:
            return


def test_without_a_folder_everything_says_so(shown: Shown) -> None:
    assert not shown.ui.addCaseButton.enabled and "Choose the folder" in shown.ui.siteLabel.text
    assert not shown.ui.newSiteButton.enabled and "Choose a model first" in shown.ui.newSiteButton.toolTip


def test_a_new_data_set_begins_with_the_labels_of_the_model(shown: Shown, a_site: Path) -> None:
    assert shown.ui.siteFolderEdit.text == str(a_site) and shown.asks.errors == []
    assert [label.name for label in shown.workflow.collecting.dataset.labels] == ["anterior", "posterior"]


def test_the_patient_is_asked_for_and_kept_as_a_pseudonym_only(shown: Shown, a_site: Path, a_result: Any) -> None:
    assert not shown.ui.addCaseButton.enabled and "Give the patient's ID" in shown.ui.siteLabel.text
    add(shown, "Jane Q. Doe")
    assert names(shown) == ["case-0001"] and cells(shown, 2) == ["in progress"]
    assert "is in the data set" in shown.ui.siteReportLabel.text
    kept = [path.read_bytes() for path in a_site.rglob("*") if path.is_file()]
    assert kept and not any(b"Doe" in content for content in kept)


def test_what_structures_without_a_segment_are_is_asked_only_where_there_are_any(
    shown: Shown, a_site: Path, a_result: Any
) -> None:
    ui = shown.ui
    ui.patientEdit.setText("P 1")
    assert not ui.othersComboBox.isVisibleTo(ui.casesPage), "both labels have a segment, one of them an empty one"
    segmentation = a_result.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("posterior"))
    ui.patientEdit.setText("P 2")
    assert ui.othersComboBox.isVisibleTo(ui.casesPage) and ui.othersComboBox.currentText == "not there: posterior"
    ui.othersComboBox.setCurrentIndex(1)
    add(shown, "P 3")
    assert ui.othersComboBox.currentText == "not outlined: posterior", "what was said stays"
    (case,) = shown.workflow.collecting.dataset.cases()
    assert case.revision is not None and case.revision.labelled == (1,)
    assert "not outlined: posterior" in cells(shown, 3)[0]


def test_the_patient_of_one_image_does_not_go_with_the_next(shown: Shown, a_result: Any) -> None:
    shown.ui.patientEdit.setText("P 1")
    shown.choose(add_volume(shown.host.scene, noise(SHAPE) + 1, "another"))
    assert shown.ui.patientEdit.text == "" and not shown.ui.addCaseButton.enabled


def test_a_case_has_a_date_its_volumes_and_a_picture(shown: Shown, a_result: Any) -> None:
    add(shown)
    assert len(cells(shown, 1)[0].partition("\n")[2]) == len("2026-01-02") and "0.0 mL anterior" in cells(shown, 3)[0]
    shown.host.wait(lambda: not shown.ui.casesTable.item(0, 0).icon().isNull())


def test_the_same_image_again_asks_before_its_labels_are_replaced(shown: Shown, a_result: Any) -> None:
    add(shown)
    before = shown.workflow.collecting.dataset.cases()
    shown.asks.agrees = False
    add(shown)
    assert len(shown.asks.questions) == 1 and shown.workflow.collecting.dataset.cases() == before
    shown.asks.agrees = True
    add(shown)
    assert len(cells(shown, 1)) == 1 and shown.asks.errors == []


def test_a_case_is_opened_edited_and_stored_again(shown: Shown, a_result: Any) -> None:
    add(shown)
    assert not shown.ui.openCaseButton.enabled and "Select a case" in shown.ui.openCaseButton.toolTip
    shown.ui.casesTable.selectRow(0)
    shown.ui.openCaseButton.click()
    assert shown.workflow.state.volume.GetName() == "case-0001" and shown.ui.addCaseButton.enabled
    view = shown.host.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert view.GetBackgroundVolumeID() == shown.workflow.state.volume.GetID()
    assert shown.ui.siteReportLabel.text == ""
    shown.workflow.reviewing.accept(shown.workflow.state.segmentation)
    shown.ui.addCaseButton.click()
    store(shown)
    assert (names(shown), cells(shown, 2)) == (["case-0001"], ["completed"])


def test_while_a_case_is_read_it_is_said_and_a_damaged_one_is_an_error(
    shown: Shown, a_site: Path, a_result: Any
) -> None:
    add(shown)
    volume = shown.workflow.state.volume
    next(a_site.rglob("image*")).write_bytes(b"damaged")
    shown.ui.casesTable.selectRow(0)
    shown.worker.held = []
    shown.ui.openCaseButton.click()
    assert shown.ui.siteReportLabel.text == "Opening case-0001..." and shown.workflow.state.volume is volume
    shown.worker.let_go()
    assert shown.ui.siteReportLabel.text == "" and shown.workflow.state.volume is volume
    assert len(shown.asks.errors) == 1 and shown.asks.errors[0].remedy


def test_a_status_is_changed_in_the_table(shown: Shown, a_result: Any) -> None:
    add(shown)
    shown.ui.casesTable.selectRow(0)
    shown.ui.caseStatusComboBox.setCurrentIndex(2)
    shown.panel.site._mark(2)
    assert cells(shown, 2) == ["completed"] and shown.ui.caseStatusComboBox.currentIndex == 0


def test_check_says_what_would_spoil_a_training(shown: Shown, a_site: Path, a_result: Any) -> None:
    add(shown)
    next(a_site.rglob("image*")).write_bytes(b"damaged")
    shown.ui.checkSiteButton.click()
    assert not shown.ui.checkSiteButton.enabled and "being checked" in shown.ui.checkSiteButton.toolTip
    shown.worker.last.progress(0.5, "reading case 1 of 2")
    assert shown.ui.siteReportLabel.text == "reading case 1 of 2"
    shown.answer()
    assert "case-0001" in shown.ui.siteReportLabel.text and shown.asks.errors == []
    assert shown.ui.checkSiteButton.enabled


def test_a_worker_that_dies_in_a_check_is_told_and_it_can_be_repeated(
    shown: Shown, a_site: Path, a_result: Any
) -> None:
    add(shown)
    shown.ui.checkSiteButton.click()
    shown.worker.last.fail(JobError("It was ended by SIGKILL.", "Memory ran out.", "Close programs.", "/log"))
    assert [error.log for error in shown.asks.errors] == ["/log"] and shown.ui.siteReportLabel.text == ""
    shown.ui.checkSiteButton.click()
    shown.answer()
    assert "patients" in shown.ui.siteReportLabel.text  # too few


def test_a_read_only_folder_is_told_with_the_remedy(
    shown: Shown, a_site: Path, a_result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    shown.ui.patientEdit.setText("P 1")
    shown.ui.addCaseButton.click()
    with monkeypatch.context() as patched:  # permissions would not stop root
        patched.setattr("os.mkdir", refuse)
        store(shown)
    assert len(shown.asks.errors) == 1 and "Read-only" in shown.asks.errors[0].what and shown.asks.errors[0].remedy
    assert shown.ui.casesTable.rowCount == 0
    add(shown)
    assert shown.ui.casesTable.rowCount == 1


def test_a_folder_that_cannot_be_made_is_told_with_the_remedy(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    shown.workflow.state.model = "slices"
    shown.asks.folders = [tmp_path / "file"]
    shown.ui.newSiteButton.click()
    assert len(shown.asks.errors) == 1 and shown.asks.errors[0].remedy and shown.workflow.state.site == ""


def test_a_data_set_that_is_gone_is_told_and_another_can_be_chosen(shown: Shown, a_site: Path) -> None:
    moved = a_site.rename(a_site.with_name("moved"))
    shown.panel.site.refresh()
    assert not shown.ui.addCaseButton.enabled and shown.ui.siteLabel.text
    shown.asks.folders = [moved]
    shown.ui.openSiteButton.click()
    assert shown.ui.siteFolderEdit.text == str(moved) and shown.asks.errors == []
