"""The pages Train and Models: choices that are kept, a training that is watched, the decision, versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apformer.jobs import JobError
from panel_samples import Shown, shown_panel
from workflow_samples import add_version


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        panel.open("tuningPage")
        yield panel


@pytest.fixture
def a_site(shown: Shown, tmp_path: Path) -> Path:
    shown.workflow.state.model = "slices"
    return shown.workflow.collecting.create(tmp_path / "site", shown.workflow.models.find("slices")).root


def epoch(number: int, **more: Any) -> dict[str, Any]:
    return {"event": "epoch", "epoch": number, "step": 100 * number, "phase": "adapt", "fold": 1, "folds": 1,
            "losses": {"total": 1.0 / number}, "dice": {"anterior": 0.5}, "kept": 0.4, "overlays": [],
            **more}  # fmt: skip


def report(version: str, adopted: bool) -> dict[str, Any]:
    before, after = {"anterior": {"mean_dice": 0.8, "hd95_mm": 4.0}}, {"anterior": {"mean_dice": 0.9, "hd95_mm": 3.0}}
    return {
        "name": "slices", "version": version, "adopted": adopted, "verdict": "Better by 0.1.", "warnings": [],
        "before": {"model": "slices 1.0.0", "labels": before, "ms_per_case": 100.0},
        "after": {"model": f"slices {version}", "labels": after, "ms_per_case": 60.0},
        "report": "/site/report.json", "page": "/site/report.html",
    }  # fmt: skip


def cells(table: Any) -> list[list[str]]:
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_without_a_data_set_the_button_says_so(shown: Shown) -> None:
    assert not shown.ui.tuneButton.enabled and "Choose the folder" in shown.ui.tuningLabel.text


def test_the_chosen_model_is_the_base_and_gives_the_name(shown: Shown, a_site: Path) -> None:
    assert shown.ui.nameEdit.text == "slices" and shown.ui.tuneButton.enabled
    assert "no unfinished training" in shown.ui.resumeButton.toolTip


def test_choices_are_asked_for_as_they_stand_in_the_widgets(shown: Shown, a_site: Path) -> None:
    import qt

    shown.ui.minutesSpinBox.setValue(2.0)
    shown.ui.keepSlider.setValue(30)
    shown.ui.labelsTable.item(1, 0).setCheckState(qt.Qt.Unchecked)
    shown.ui.adoptComboBox.setCurrentIndex(2)
    assert "30 % of the image" in shown.ui.keepLabel.text
    shown.ui.tuneButton.click()
    asked = shown.trainer.last.fields
    assert (asked["seconds"], asked["budget"], asked["labels"], asked["adopt"]) == (
        120.0,
        "keep=0.3",
        ["anterior"],
        "never",
    )
    assert shown.install.asked == [True] and shown.worker.asked == []


def test_choices_come_back_with_the_scene(shown: Shown, a_site: Path, tmp_path: Path) -> None:
    shown.ui.minutesSpinBox.setValue(7.0)
    shown.ui.keepSlider.setValue(45)
    scene, file = shown.host.scene, str(tmp_path / "scene.mrml")
    scene.SetURL(file)
    assert scene.Commit(file)
    shown.ui.minutesSpinBox.setValue(3.0)
    shown.workflow.state.model = "photos"
    scene.Clear(False)
    scene.SetURL(file)
    scene.Connect()
    shown.host.settle()
    assert (shown.ui.minutesSpinBox.value, shown.ui.keepSlider.value) == (7.0, 45)
    assert shown.workflow.state.model == "slices" and shown.ui.modelList.currentRow >= 0


def test_half_a_name_is_refused_in_words_and_loses_nothing(shown: Shown, a_site: Path) -> None:
    shown.ui.minutesSpinBox.setValue(7.0)
    shown.ui.nameEdit.setText("../x")
    shown.panel.tuning._name()
    assert not shown.ui.tuneButton.enabled and "cannot be the name" in shown.ui.tuningLabel.text
    assert shown.ui.minutesSpinBox.value == 7.0 and shown.workflow.tuning.choices.minutes == 7.0


def test_no_label_is_no_training(shown: Shown, a_site: Path) -> None:
    import qt

    for row in range(2):
        shown.ui.labelsTable.item(row, 0).setCheckState(qt.Qt.Unchecked)
    assert not shown.ui.tuneButton.enabled and "No label is checked" in shown.ui.tuningLabel.text


def test_each_label_is_kept_mapped_or_new_and_the_bases_others_can_be_dropped(
    shown: Shown, a_site: Path, tmp_path: Path
) -> None:
    import qt

    partners = [shown.ui.labelsTable.cellWidget(row, 1) for row in range(2)]
    assert [shown.ui.labelsTable.item(row, 0).text() for row in range(2)] == ["anterior", "posterior"]
    texts = [[box.itemText(number) for number in range(box.count)] for box in partners]
    assert texts == [["the same name", "posterior"], ["the same name", "anterior"]]
    partners[0].setCurrentIndex(1)
    shown.ui.labelsTable.item(1, 0).setCheckState(qt.Qt.Unchecked)
    shown.ui.replaceCheckBox.setChecked(True)
    shown.ui.tuneButton.click()
    asked = shown.trainer.last.fields
    assert (asked["labels"], asked["mapping"], asked["replace"]) == (["anterior"], {"anterior": "posterior"}, True)


def test_two_labels_cannot_be_one_label_of_the_base(shown: Shown, a_site: Path) -> None:
    shown.ui.labelsTable.cellWidget(0, 1).setCurrentIndex(1)
    assert not shown.ui.tuneButton.enabled
    assert "anterior and posterior would both be posterior" in shown.ui.tuningLabel.text


def test_another_base_offers_its_own_labels_and_none_makes_all_of_them_new(shown: Shown, a_site: Path) -> None:
    shown.ui.labelsTable.cellWidget(0, 1).setCurrentIndex(1)
    shown.ui.baseComboBox.setCurrentIndex(0)
    shown.panel.tuning._choose_base()
    box = shown.ui.labelsTable.cellWidget(0, 1)
    assert [box.itemText(number) for number in range(box.count)] == ["new"] and not box.enabled
    assert not shown.ui.replaceCheckBox.enabled
    choices = shown.panel.tuning._choices()
    assert (choices.base, choices.mapping, choices.replace) == ("", {}, False)


def test_what_was_chosen_of_labels_comes_back_with_the_scene(shown: Shown, a_site: Path, tmp_path: Path) -> None:
    import qt

    shown.ui.labelsTable.item(1, 0).setCheckState(qt.Qt.Unchecked)
    shown.ui.labelsTable.cellWidget(0, 1).setCurrentIndex(1)
    scene, file = shown.host.scene, str(tmp_path / "scene.mrml")
    scene.SetURL(file)
    assert scene.Commit(file)
    shown.ui.labelsTable.item(1, 0).setCheckState(qt.Qt.Checked)
    shown.ui.labelsTable.cellWidget(0, 1).setCurrentIndex(0)
    scene.Clear(False)
    scene.SetURL(file)
    scene.Connect()
    shown.host.settle()
    assert shown.panel.tuning._labels.learned() == ["anterior"]
    assert shown.panel.tuning._labels.mapping() == {"anterior": "posterior"}


def test_the_estimate_is_a_verdict_in_words(shown: Shown, a_site: Path) -> None:
    shown.ui.estimateButton.click()
    assert shown.trainer.last.job == "preflight"
    reason = {"what": "There are 2 cases.", "meaning": "Too few.", "remedy": "Add 2."}
    shown.trainer.last.tell("result", ok=False, reason=reason)
    assert shown.ui.tuningLabel.text == "There are 2 cases. Too few. Add 2."


def test_an_estimate_of_other_choices_than_those_that_are_made_now_is_not_shown(shown: Shown, a_site: Path) -> None:
    shown.ui.estimateButton.click()
    asked = shown.trainer.last
    shown.ui.minutesSpinBox.setValue(shown.ui.minutesSpinBox.value + 5)
    asked.tell("result", ok=False, reason={"what": "There are 2 cases.", "meaning": "Too few.", "remedy": "Add 2."})
    assert shown.ui.tuningLabel.text == ""


def test_a_training_is_watched_with_curves_and_cancelled(shown: Shown, a_site: Path, tmp_path: Path) -> None:
    import qt

    picture = qt.QPixmap(40, 30)
    picture.fill(qt.QColor("red"))
    assert picture.save(str(tmp_path / "overlay 脳.png"))
    shown.ui.tuneButton.click()
    shown.trainer.last.progress(0.3, "training, adapt: step 300", eta_s=90.0)
    for number in (1, 2, 3):
        shown.trainer.last.tell("metrics", **epoch(number, overlays=[str(tmp_path / "overlay 脳.png")]))
    assert "adapt: step 300" in shown.ui.tuningStatusLabel.text and "about 90 s left" in shown.ui.tuningStatusLabel.text
    curves = shown.ui.curvesLabel.pixmap.toImage()
    drawn = {curves.pixelColor(x, y).name() for x in range(curves.width()) for y in range(curves.height())}
    anterior = shown.workflow.models.find("slices").labels[0]
    assert {qt.QColor(*anterior.color).name(), "#0072b2"} <= drawn  # Dice and the loss
    assert not shown.ui.overlaysLabel.isHidden() and shown.ui.tuningProgressBar.value == 30
    assert not shown.ui.estimateButton.enabled and shown.ui.tuneButton.text == "Cancel"
    shown.ui.tuneButton.click()
    shown.trainer.last.tell("cancelled")
    assert "Resume continues it" in shown.ui.tuningStatusLabel.text and shown.ui.tuneButton.text == "Fine-tune"


def test_an_unfinished_training_is_resumed(shown: Shown, a_site: Path) -> None:
    (a_site / "trainings" / "slices").mkdir(parents=True)
    (a_site / "trainings" / "slices" / "plan.json").write_text("{}", encoding="utf-8")
    shown.panel.tuning.refresh()
    shown.ui.resumeButton.click()
    assert shown.trainer.last.fields["resume"] is True


def test_closing_the_scene_mid_training_is_safe(shown: Shown, a_site: Path) -> None:
    shown.ui.tuneButton.click()
    shown.trainer.last.tell("metrics", **epoch(1))
    shown.host.close_scene()
    shown.trainer.last.tell("metrics", **epoch(2))
    version = add_version(shown.workflow.library, "slices")
    shown.trainer.last.tell("result", **report(version, adopted=False))
    assert f"slices@{version}" in shown.ui.tuningStatusLabel.text and shown.ui.comparisonTable.rowCount == 3


def test_a_worker_that_dies_mid_training_is_told_once(shown: Shown, a_site: Path) -> None:
    shown.ui.tuneButton.click()
    shown.trainer.last.fail(JobError("It was ended by SIGKILL.", "Memory ran out.", "Close programs.", "/log"))
    assert [error.log for error in shown.asks.errors] == ["/log"] and shown.ui.tuneButton.text == "Fine-tune"


def test_before_and_after_stand_in_a_table_and_the_user_decides(shown: Shown, a_site: Path) -> None:
    shown.ui.tuneButton.click()
    version = add_version(shown.workflow.library, "slices")
    shown.trainer.last.tell("result", **report(version, adopted=False))
    assert cells(shown.ui.comparisonTable) == [
        ["Dice, anterior", "0.800", "0.900", "+0.100"],
        ["HD95 (mm), anterior", "4.0", "3.0", "-1.0"],
        ["ms per case", "100", "60", "-40"],
    ]
    assert shown.ui.decisionLabel.text == "Better by 0.1." and not shown.ui.keepOldButton.enabled
    shown.ui.adoptButton.click()
    assert not shown.ui.adoptButton.enabled and "being checked" in shown.ui.adoptButton.toolTip
    shown.answer()
    assert shown.workflow.models.find("slices").version == version and not shown.ui.adoptButton.enabled
    shown.ui.keepOldButton.click()
    shown.answer()
    assert shown.workflow.models.find("slices").version == "1.0.0" and shown.ui.adoptButton.enabled


def test_versions_are_listed_made_active_and_rolled_back(shown: Shown, a_site: Path) -> None:
    version = add_version(shown.workflow.library, "slices")
    shown.open("modelsPage")
    assert [row[4] for row in cells(shown.ui.versionsTable)] == ["active", ""]
    assert not shown.ui.rollBackButton.enabled and "no earlier slices" in shown.ui.rollBackButton.toolTip
    shown.ui.versionsTable.selectRow(1)
    shown.ui.activateButton.click()
    assert not shown.ui.rollBackButton.enabled and not shown.ui.importButton.enabled
    shown.answer()
    assert shown.workflow.models.find("slices").version == version
    assert not shown.ui.activateButton.enabled and "already" in shown.ui.activateButton.toolTip
    shown.ui.rollBackButton.click()
    shown.answer()
    assert shown.workflow.models.find("slices").version == "1.0.0" and "1.0.0" in cells(shown.ui.versionsTable)[0][0]


def test_a_model_goes_to_a_colleague_and_comes_back(shown: Shown, a_site: Path, tmp_path: Path) -> None:
    file = tmp_path / "Modell 脳.zip"
    shown.open("modelsPage")
    shown.ui.versionsTable.selectRow(0)
    shown.asks.files = [file, file]
    shown.ui.exportButton.click()
    shown.answer()
    assert file.exists() and f"Written to {file}" in shown.ui.versionsLabel.text.replace("\u200b", "")
    shown.ui.importButton.click()
    shown.answer()
    assert len(shown.asks.questions) == 1 and "slices is installed already" in shown.asks.questions[0]
    assert shown.worker.last.fields["replace"] is True
    shown.answer()
    assert shown.ui.versionsLabel.text == "slices 1.0.0 is installed." and len(shown.asks.questions) == 1
    assert shown.asks.errors == []


def test_a_no_to_replacing_a_model_changes_nothing(shown: Shown, a_site: Path, tmp_path: Path) -> None:
    shown.workflow.versions.export("slices", tmp_path / "slices.zip")
    shown.asks.files, shown.asks.agrees = [tmp_path / "slices.zip"], False
    shown.ui.importButton.click()
    shown.answer()
    assert len(shown.asks.questions) == 1 and shown.ui.importButton.enabled
    assert [row.card.origin for row in shown.workflow.versions.rows("slices")] == ["bundled"]


def test_a_file_that_is_no_model_is_told_and_not_asked_about(shown: Shown, a_site: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    shown.asks.files = [tmp_path / "bad.zip"]
    shown.ui.importButton.click()
    shown.answer()
    assert len(shown.asks.errors) == 1 and shown.asks.errors[0].remedy and shown.asks.questions == []
    assert shown.ui.importButton.enabled
