"""The header and the page Segment: what can be chosen, what is said before, one button, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.jobs import JobError
from panel_samples import ESTIMATE, Shown, add_volume, noise, shown_panel
from workflow_samples import a_block, add_version, make_sequence

SHAPE = (5, 6, 7)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


def line(shown: Shown) -> str:
    return str(shown.ui.preflightLabel.text)


def test_without_a_volume_the_button_says_what_to_do(shown: Shown) -> None:
    assert not shown.ui.segmentButton.enabled
    assert "volume" in shown.ui.segmentButton.toolTip and line(shown) == shown.ui.segmentButton.toolTip


def test_models_are_listed_with_what_a_user_needs_and_found_by_words(shown: Shown) -> None:
    listed = shown.ui.modelList
    texts = [listed.item(row).text() for row in range(listed.count)]
    assert len(texts) == 4 and "slices 1.0.0\nMR: anterior, posterior. Dice 0.85" in texts
    tips = [listed.item(row).toolTip() for row in range(listed.count)]
    assert any("MR, slices: anterior, posterior. Dice 0.85 in 12 cases; 0." in tip for tip in tips)
    shown.ui.modelSearchEdit.setText("rgb")
    assert [listed.item(row).text().split()[0] for row in range(listed.count)] == ["photos"]


def test_a_ct_brings_its_model_along_and_another_choice_can_be_taken_back(shown: Shown) -> None:
    shown.ui.volumeSelector.setCurrentNode(add_volume(shown.host.scene, noise() - 1000, "CT"))
    assert shown.workflow.state.model == "liver-ct" and "liver-ct" in shown.ui.suggestionLabel.text
    assert "CT" in shown.ui.suggestionLabel.toolTip
    shown.choose(shown.workflow.state.volume, "slices")
    assert not shown.ui.useSuggestionButton.isHidden()
    shown.ui.useSuggestionButton.click()
    assert shown.workflow.state.model == "liver-ct"


def test_our_own_version_is_marked(shown: Shown) -> None:
    version = add_version(shown.workflow.library, "slices")
    shown.workflow.versions.adopt(f"slices@{version}")
    assert f"slices {version} (our own)" in shown.ui.modelList.item(0).text()


def test_the_estimate_is_told_in_words_before_anything_runs(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    assert line(shown) == "Estimating..." and shown.worker.asked == []
    shown.host.wait(lambda: shown.worker.asked)
    shown.worker.last.tell("result", **ESTIMATE)
    assert line(shown).startswith("CPU, about 4.0 s; needs 1.2 GB")


def test_one_button_segments_and_tells_where_and_how_long_it_ran(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    shown.ui.segmentButton.click()
    assert shown.ui.segmentButton.text == "Cancel" and [asked.job for asked in shown.worker.asked] == ["segment"]
    shown.worker.last.progress(0.4)
    assert shown.ui.progressBar.value == 40 and "about 3.0 s left" in shown.ui.statusLabel.text
    shown.worker.last.finish(a_block(SHAPE))
    assert shown.ui.segmentButton.text == "Segment" and shown.ui.progressBar.isHidden()
    assert shown.ui.statusLabel.text.startswith("Done on CPU in 1.5 s. anterior 0.2 mL.")
    assert shown.ui.segmentationSelector.currentNode() is shown.workflow.state.segmentation is not None


def test_the_same_button_cancels(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    shown.ui.segmentButton.click()
    shown.ui.segmentButton.click()
    assert shown.worker.cancelled == [shown.worker.last.id] and "Cancelling" in shown.ui.statusLabel.text
    shown.worker.last.tell("cancelled")
    assert shown.ui.statusLabel.text == "Cancelled." and shown.ui.segmentButton.text == "Segment"
    assert shown.asks.errors == []


@pytest.mark.parametrize("what", ["The worker was ended by SIGKILL.", "The GPU cuda:0 is not there any more."])
def test_a_failure_is_shown_once_and_the_next_click_works(shown: Shown, what: str) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    shown.ui.segmentButton.click()
    shown.worker.last.fail(JobError(what, "There is no result.", "Try again.", "/log"))
    assert [error.what for error in shown.asks.errors] == [what] and shown.ui.statusLabel.text == what
    assert shown.segment(a_block(SHAPE)) is not None


def test_a_result_is_one_step_that_the_segment_editor_takes_back(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    node = shown.segment(a_block(SHAPE))
    assert shown.ui.segmentEditor.segmentationNode() is node
    volume = shown.workflow.reviewing.rows(node)[0].volume_ml
    shown.segment(np.zeros(SHAPE, np.uint8))
    assert shown.workflow.state.segmentation is node and shown.workflow.reviewing.rows(node)[0].volume_ml == 0.0
    shown.ui.segmentEditor.undo()
    assert shown.workflow.reviewing.rows(node)[0].volume_ml == volume > 0.0


def test_maps_are_not_offered_as_volumes(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    shown.segment(a_block(SHAPE), {"uncertainty": np.ones(SHAPE, np.float32)})
    selector = shown.ui.volumeSelector
    assert [selector.nodeFromIndex(index).GetName() for index in range(selector.nodeCount())] == ["MR"]


def test_a_region_goes_with_the_request_and_can_be_taken_away(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    roi = shown.host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetXYZ(3.0, 3.0, 4.0)
    roi.SetRadiusXYZ(2.0, 2.0, 3.0)
    shown.ui.roiSelector.setCurrentNode(roi)
    shown.ui.segmentButton.click()
    assert shown.workflow.state.roi is roi and ":" in shown.worker.last.fields["roi"]
    shown.worker.last.finish(a_block(SHAPE))
    shown.ui.roiSelector.setCurrentNode(None)
    shown.ui.segmentButton.click()
    assert "roi" not in shown.worker.last.fields


def test_a_colour_picture_goes_to_a_model_for_colours(shown: Shown) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 20, 30, 3)).astype(np.uint8)
    shown.choose(add_volume(shown.host.scene, picture, "photo", "vtkMRMLVectorVolumeNode"), "photos")
    assert shown.segment(a_block((3, 20, 30))[1:2]) is not None
    assert shown.asks.errors == []


def test_ctrl_enter_segments_and_cancels(shown: Shown) -> None:
    import qt

    shortcuts = shown.panel.segment._shortcuts
    assert [shortcut.key.toString() for shortcut in shortcuts] == ["Ctrl+Return", "Ctrl+Enter"]
    shortcuts[0].activated.emit()  # without a volume: nothing happens
    assert shown.worker.asked == []
    shown.choose(add_volume(shown.host.scene, noise()))
    shortcuts[0].activated.emit()
    shortcuts[1].activated.emit()
    assert [asked.job for asked in shown.worker.asked] == ["segment"] and shown.worker.cancelled != []
    assert isinstance(shortcuts[0], qt.QShortcut)


# ------------------------------------------------------------------ bad input


def test_a_label_map_set_by_a_script_is_refused_in_words(shown: Shown) -> None:
    node = add_volume(shown.host.scene, a_block(SHAPE), "labels", "vtkMRMLLabelMapVolumeNode")
    shown.workflow.state.model, shown.workflow.state.volume = "slices", node
    assert not shown.ui.segmentButton.enabled and "label" in line(shown)
    assert shown.ui.volumeSelector.nodeCount() == 0


def test_a_picture_does_not_go_into_a_model_for_volumes(shown: Shown) -> None:
    picture = np.zeros((1, 20, 30, 3), np.uint8)
    shown.choose(add_volume(shown.host.scene, picture, "photo", "vtkMRMLVectorVolumeNode"), "volumes")
    assert not shown.ui.segmentButton.enabled and "single slice" in line(shown)


def test_a_volume_deleted_mid_job_ends_it_without_a_window(shown: Shown) -> None:
    node = shown.choose(add_volume(shown.host.scene, noise()))
    shown.ui.segmentButton.click()
    shown.host.scene.RemoveNode(node)
    assert "was removed while it was segmented" in shown.ui.statusLabel.text and shown.asks.errors == []
    shown.worker.last.finish(a_block(SHAPE))
    assert shown.workflow.state.segmentation is None and not shown.ui.segmentButton.enabled


def test_closing_the_scene_mid_job_is_safe_and_keeps_the_model(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    shown.ui.segmentButton.click()
    shown.host.close_scene()
    shown.worker.last.finish(a_block(SHAPE))
    assert (
        shown.workflow.state.model == "slices"
        and shown.host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    )
    shown.choose(add_volume(shown.host.scene, noise(), "next"))
    assert shown.segment(a_block(SHAPE)) is not None


def test_a_model_that_is_gone_is_told_of(shown: Shown, tmp_path: Path) -> None:
    shown.choose(add_volume(shown.host.scene, noise()))
    (tmp_path / "bundled" / "slices").rename(tmp_path / "elsewhere")
    shown.panel.enter()
    shown.workflow.state.device = "cpu"
    assert "is not installed any more" in line(shown) and "is not installed any more" in shown.ui.modelDetailsLabel.text


def test_names_with_quotes_and_letters_of_all_scripts_are_shown_as_they_are(shown: Shown) -> None:
    name = 'l\'œil "gauche" 脳 <b>'
    shown.choose(add_volume(shown.host.scene, noise(), name))
    shown.segment(a_block(SHAPE))
    assert shown.workflow.state.segmentation.GetName().startswith(name)


def test_two_panels_on_one_scene_agree_and_do_not_collide(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with shown_panel(shown.host, tmp_path / "second") as other:
        node = shown.choose(add_volume(shown.host.scene, noise()))
        assert other.ui.volumeSelector.currentNode() is node and other.workflow.state.model == "slices"
        shown.ui.segmentButton.click()
        other.panel.segment.refresh()
        assert other.ui.segmentButton.text == "Cancel"
        shown.worker.last.finish(a_block(SHAPE))
        assert other.ui.segmentationSelector.currentNode() is shown.workflow.state.segmentation


# ------------------------------------------------------------------ several


def test_a_folder_is_segmented_from_files_to_files(shown: Shown, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.nii.gz", "b.png"):
        (source / name).write_bytes(b"x")
    shown.workflow.state.model = "slices"
    shown.unfold("workSection")
    shown.asks.folders = [source, output]
    shown.ui.folderButton.click()
    assert shown.worker.last.fields["image"] == str(source / "a.nii.gz")
    assert shown.worker.last.fields["outputs"] == {"labels": str(output / "a.seg.nrrd")}
    shown.worker.last.tell("result", device="cpu")
    assert shown.worker.last.fields["outputs"] == {"labels": str(output / "b.png")}
    shown.worker.last.tell("result", device="cpu")
    assert shown.ui.statusLabel.text == "2 of 2 segmented."


def test_every_frame_of_a_sequence_can_be_segmented(shown: Shown) -> None:
    frames = make_sequence(shown.host.scene, shown.host.logics.sequences, [noise(), noise()])
    shown.choose(frames.proxy)
    assert not shown.ui.everyFrameCheckBox.isHidden() and "(2)" in shown.ui.everyFrameCheckBox.text
    shown.ui.everyFrameCheckBox.setChecked(True)
    shown.ui.segmentButton.click()
    for _frame in range(2):
        shown.worker.last.finish(a_block(SHAPE))
    assert shown.ui.statusLabel.text == "2 of 2 segmented."


# ------------------------------------------------------------------ packages


def test_packages_are_asked_for_at_the_first_use_and_a_no_is_taken(shown: Shown) -> None:
    shown.install.lacking, shown.install.willing = True, False
    shown.choose(add_volume(shown.host.scene, noise()))
    assert "installs what is needed" in line(shown)
    shown.ui.segmentButton.click()
    assert shown.install.asked == [False] and shown.worker.asked == []
    shown.install.willing = True
    shown.ui.segmentButton.click()
    assert [asked.job for asked in shown.worker.asked] == ["segment"]


def test_the_self_check_goes_to_the_clipboard(shown: Shown) -> None:
    import qt

    shown.ui.reportButton.click()
    assert qt.QApplication.clipboard().text() == "torch 2.13, one GPU"
