"""All pages in one sitting, with the real worker processes on real data.

With APFORMER_SCREENSHOTS=FOLDER pictures of the pages are written there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from panel_samples import ROOT, Shown, add_volume, save_small_model, shown_panel

if TYPE_CHECKING:
    from apformer.volume import Volume

DATA = Path(os.environ.get("APFORMER_DATA") or ROOT.parent / "shared" / "data") / "hippocampus-mr"
PICTURES = os.environ.get("APFORMER_SCREENSHOTS")
MODEL = "hippocampus-mr"
PATIENTS = 8  # the fewest for one split
REVIEWED = "hippocampus_038.nii.gz"  # in which the network is unsure at more than one place
SMALL = "small-hippocampus"  # what is fine-tuned: the bundled model learns too slowly for a test without a GPU
# Of fine-tuning, most of which a busy computer spends on starting and measuring; longer for curves that show something.
MINUTES = 0.6 if PICTURES is None else 5.0
SIDE = 320  # pixels of a slice beside the panel
README_SIZE = (380, 640)
LOOKS = [(f"{width}x{height}{'-dark' * dark}", (width, height), dark)
         for width, height in ((340, 540), (380, 540), (480, 870)) for dark in (False, True)]  # fmt: skip
LONG, VERY_LONG = 120.0, 2400.0  # seconds, on a computer that is busy with other things

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no labelled data in {DATA}"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's"),
]


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    from apformer.bundles import ModelLibrary
    from APFormerSlicerLib.widgets.worker import ProcessWorker

    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))  # the workers look there too
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    inherited = os.environ.get("PYTHONPATH")
    sources = [str(ROOT / "APFormerSlicer"), *([inherited] if inherited else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sources))

    def worker() -> Any:
        return ProcessWorker(sys.executable, tmp_path / "logs")

    save_small_model(SMALL, MODEL)
    with shown_panel(a_slicer, tmp_path, worker, ModelLibrary()) as panel:
        yield panel


def read(name: str) -> tuple[Volume, Volume]:
    from apformer.files import read_volume

    return read_volume(DATA / "imagesTr" / name), read_volume(DATA / "labelsTr" / name)


def cases() -> list[str]:
    return sorted(path.name for path in (DATA / "imagesTr").glob("*.nii.gz"))


def load(shown: Shown, name: str) -> Any:
    import slicer
    from APFormerSlicerLib.scene.geometry import vtk_matrix

    image, _ = read(name)
    node = add_volume(shown.host.scene, np.asarray(image.array), "T1 hippocampus")
    node.SetIJKToRASMatrix(vtk_matrix(image.ijk_to_ras))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def fill_site(shown: Shown, folder: Path) -> None:
    """Cases of other patients, as colleagues completed them."""
    dataset = shown.workflow.collecting.create(folder, shown.workflow.models.find(MODEL))
    for name in [name for name in cases() if name != REVIEWED][: PATIENTS - 1]:
        image, labels = read(name)
        dataset.add(image, labels, patient=name, status="completed")
    shown.workflow.collecting.changed.emit()


def wait_for_status(shown: Shown, text: str) -> None:
    shown.host.wait(lambda: text in shown.ui.statusLabel.text or shown.asks.errors, LONG)


def picture(shown: Shown, page: str, name: str, *, slice_beside: bool = False) -> None:
    """The page for the README; with what the red slice view shows, on demand. And, in folders of their own, as it is in
    each of `LOOKS`, for whoever changes the panel."""
    if PICTURES is None:
        return
    shown.open(page)
    for folder, size, dark in LOOKS:
        (Path(PICTURES) / folder).mkdir(parents=True, exist_ok=True)
        shown.host.darken(dark)
        shown.window.resize(*size)
        shown.host.settle(0.7)
        shown.host.picture(Path(PICTURES) / folder / name, shown.window)
    shown.host.darken(False)
    path = shown.host.picture(Path(PICTURES) / name, shown.window, README_SIZE)
    if slice_beside:
        put_slice_beside(shown, path)


def put_slice_beside(shown: Shown, path: Path) -> None:
    import qt
    from APFormerSlicerLib.widgets.pictures import from_array
    from slice_pictures import slice_array

    panel, logic = qt.QPixmap(str(path)), shown.host.app.layoutManager().sliceWidget("Red").sliceLogic()
    both = qt.QPixmap(SIDE + panel.width(), panel.height())
    both.fill(qt.QColor(0, 0, 0))
    painter = qt.QPainter()
    painter.begin(both)
    painter.drawPixmap(0, (panel.height() - SIDE) // 2, from_array(slice_array(logic, SIDE)))
    painter.drawPixmap(SIDE, 0, panel)
    painter.end()
    assert both.save(str(path))


def test_segment_cancel_die_correct_collect_fine_tune_adopt_roll_back_save_and_reload(
    shown: Shown, tmp_path: Path
) -> None:
    ui, workflow = shown.ui, shown.workflow
    shown.choose(load(shown, REVIEWED), MODEL)
    workflow.state.device = "cpu"

    # The worker dies in its first job; the panel tells why and goes on.
    ui.segmentButton.click()
    shown.host.wait(lambda: (shown.worker._talk.worker or {}).get("pid"), LONG)
    os.kill(shown.worker._talk.worker["pid"], signal.SIGKILL)
    shown.host.wait(lambda: shown.asks.errors, LONG)
    assert "SIGKILL" in shown.asks.errors.pop().what and ui.segmentButton.text == "Segment"

    # Preflight in words, a job that is cancelled, one that is not.
    shown.host.wait(lambda: ui.preflightLabel.text.startswith("CPU"), LONG)
    ui.segmentButton.click()
    ui.segmentButton.click()
    wait_for_status(shown, "Cancelled.")
    assert workflow.state.segmentation is None
    shown.host.wait(lambda: ui.preflightLabel.text.startswith("CPU"), LONG)
    ui.keptTokensCheckBox.setChecked(True)
    ui.segmentButton.click()
    wait_for_status(shown, "Done on CPU")
    assert shown.asks.errors == []
    result = workflow.state.segmentation
    shown.host.wait(lambda: ui.preflightLabel.text.startswith("CPU"), LONG)
    assert "for the last image here" in ui.modelList.currentItem().toolTip()
    ui.aboutButton.setChecked(True)
    picture(shown, "segmentPage", "1-segment.png")
    ui.aboutButton.setChecked(False)

    # A slice is corrected, the places are visited, the result accepted.
    shown.open("reviewPage")
    shown.host.wait(lambda: ui.segmentsTable.rowCount == 2)
    before = ui.segmentsTable.item(0, 1).text()
    correct_a_slice(shown, result)
    shown.host.wait(lambda: ui.segmentsTable.item(0, 1).text() != before)
    ui.uncertaintyCheckBox.setChecked(True)
    places = ui.placesLabel.text
    if ui.nextPlaceButton.enabled:  # where the network is unsure differs from version to version
        ui.nextPlaceButton.click()
        shown.host.wait(lambda: ui.placesLabel.text != places)
    ui.segmentsButton.setChecked(True)
    picture(shown, "reviewPage", "2-review.png", slice_beside=True)
    ui.acceptButton.click()
    shown.host.wait(lambda: ui.segmentsTable.item(0, 2).text() == "completed")

    # The case joins those of colleagues.
    shown.open("casesPage")
    fill_site(shown, tmp_path / "hippocampus cases of our hospital")
    ui.patientEdit.setText("patient 0")
    ui.addCaseButton.click()
    assert not ui.addCaseButton.enabled  # one after the other
    shown.host.wait(lambda: shown.workflow.collecting.storing is None, LONG)
    assert shown.asks.errors == [] and ui.casesTable.rowCount == PATIENTS
    shown.host.wait(lambda: not shown.panel.site._missing, LONG)
    picture(shown, "casesPage", "3-cases.png")
    assert [row.status for row in workflow.collecting.rows()] == ["completed"] * PATIENTS

    # A short fine-tuning; the user decides.
    shown.open("tuningPage")
    ui.baseComboBox.setCurrentIndex(ui.baseComboBox.findData(SMALL))
    shown.panel.tuning._choose_base()
    ui.adoptComboBox.setCurrentIndex(2)
    ui.tuningDeviceComboBox.setCurrentIndex(1)
    for minutes in (MINUTES, 3 * MINUTES, 9 * MINUTES):  # a slow computer says that it needs more time, and gets it
        ui.minutesSpinBox.setValue(minutes)
        shown.asks.errors.clear()
        ui.tuneButton.click()
        shown.host.wait(lambda: not shown.panel.training.running, VERY_LONG)
        if not any("Give at least" in error.remedy for error in shown.asks.errors):
            break
    assert shown.asks.errors == [] and ui.comparisonTable.rowCount > 2
    version = workflow.tuning.training.trained.reference
    before = workflow.models.find(SMALL).version
    picture(shown, "tuningPage", "4-train.png")
    ui.adoptButton.click()
    shown.host.wait(lambda: workflow.models.find(SMALL).version == version.partition("@")[2] != before, LONG)
    shown.open("modelsPage")
    shown.choose(workflow.state.volume, SMALL)
    shown.host.wait(lambda: ui.rollBackButton.enabled, LONG)
    picture(shown, "modelsPage", "5-models.png")
    ui.rollBackButton.click()
    shown.host.wait(lambda: workflow.models.find(SMALL).version == before, LONG)
    assert shown.asks.errors == []

    # The scene is saved, closed and loaded; the panel is as it was.
    scene, file = shown.host.scene, str(tmp_path / "scene.mrml")
    kept = (workflow.state.model, workflow.state.site, workflow.tuning.choices)
    scene.SetURL(file)
    assert scene.Commit(file)
    shown.host.close_scene()
    assert ui.volumeSelector.currentNode() is None and not ui.segmentButton.enabled
    workflow.state.model = ""
    scene.SetURL(file)
    scene.Connect()
    shown.host.settle()
    assert (workflow.state.model, workflow.state.site, workflow.tuning.choices) == kept
    assert ui.volumeSelector.currentNode().GetName() == "T1 hippocampus"


def correct_a_slice(shown: Shown, segmentation: Any) -> None:
    """Erase the first segment on the slice with most of it, as an effect of the Segment Editor does."""
    from headless import matrix_of, redraw, segment_mask

    segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
    volume = shown.workflow.state.volume
    mask = segment_mask(segmentation, segment_id, tuple(reversed(volume.GetImageData().GetDimensions())))
    mask[int(np.argmax(mask.sum(axis=(1, 2))))] = 0
    shown.ui.segmentEditor.saveStateForUndo()
    redraw(segmentation, segment_id, mask, matrix_of(volume))


CARDIAC = DATA.parent / "acdc-cine-mr"
HEART, VENTRICLE = "patient021_frame01.nii.gz", 3  # of another hospital than the model's, and harder than most; label


@pytest.mark.skipif(not CARDIAC.is_dir(), reason=f"no labelled data in {CARDIAC}")
def test_one_slice_of_a_heart_is_set_right_and_the_rest_follows(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer
    from apformer.files import read_volume
    from APFormerSlicerLib.scene import to_label_map
    from APFormerSlicerLib.scene.difference import difference_of
    from APFormerSlicerLib.scene.geometry import vtk_matrix
    from APFormerSlicerLib.workflow import applying
    from headless import matrix_of, redraw

    monkeypatch.setattr(applying, "SECONDS", 60.0)  # a slow computer takes as many steps as a fast one
    ui, workflow = shown.ui, shown.workflow
    image = read_volume(CARDIAC / "imagesTr" / HEART)
    right = (read_volume(CARDIAC / "labelsTr" / HEART).array == VENTRICLE).astype(np.uint8)
    node = add_volume(shown.host.scene, np.asarray(image.array), "Cine MR")
    node.SetIJKToRASMatrix(vtk_matrix(image.ijk_to_ras))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    shown.choose(node, "left-ventricle-cine-mr")
    workflow.state.device = "cpu"
    ui.segmentButton.click()
    wait_for_status(shown, "Done on CPU")
    segmentation = workflow.state.segmentation
    labels = workflow.models.find("left-ventricle-cine-mr").labels

    def now() -> np.ndarray:
        return to_label_map(segmentation, node, labels).array

    # The worst slice is corrected, and marked.
    shown.open("reviewPage")
    proposed = now().copy()
    worst = int(np.argmax((proposed != right).sum(axis=(1, 2))))
    drawn = proposed.copy()
    drawn[worst] = right[worst]
    ui.segmentEditor.saveStateForUndo()
    redraw(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), drawn, matrix_of(node))
    shown.host.wait(lambda: ui.followLabel.text == "strokes on 1 slice", LONG)
    ui.sliceStrip.setCurrentCell(0, worst)
    shown.host.settle(0.2)
    ui.rightButton.click()
    shown.host.wait(lambda: ui.followLabel.text == "1 corrected slice" and ui.followButton.enabled, LONG)
    picture(shown, "reviewPage", "6-corrected.png")

    # The worker dies; nothing is lost.
    ui.followButton.click()
    shown.host.wait(lambda: "learning" in ui.statusLabel.text, LONG)
    os.kill(shown.worker._talk.worker["pid"], signal.SIGKILL)
    shown.host.wait(lambda: shown.asks.errors, LONG)
    assert "SIGKILL" in shown.asks.errors.pop().what and np.array_equal(now(), drawn)

    # The rest follows.
    shown.host.wait(lambda: ui.followButton.enabled, LONG)
    ui.followButton.click()
    shown.host.wait(lambda: workflow.following.run_of(segmentation) is None, VERY_LONG)
    assert shown.asks.errors == [] and "Learned from 1 corrected slice on CPU" in ui.statusLabel.text
    shown.host.wait(lambda: difference_of(segmentation) is not None, LONG)
    picture(shown, "reviewPage", "7-followed.png")
    followed, rest = now().copy(), np.arange(len(right)) != worst
    assert np.array_equal(followed[worst], right[worst])
    assert dice(followed[rest], right[rest]) > dice(proposed[rest], right[rest])
    ui.undoFollowedButton.click()
    shown.host.wait(lambda: not ui.followedContents.isVisible(), LONG)
    assert np.array_equal(now(), drawn)


WALL = 2  # label: what the left-ventricle model does not know


@pytest.mark.skipif(not CARDIAC.is_dir(), reason=f"no labelled data in {CARDIAC}")
def test_the_wall_of_a_heart_is_outlined_on_a_few_slices_and_those_between_follow(shown: Shown) -> None:
    import slicer
    from apformer.files import read_volume
    from APFormerSlicerLib.scene import new_segmentation
    from APFormerSlicerLib.scene.geometry import vtk_matrix
    from headless import draw, matrix_of, segment_mask

    ui, workflow = shown.ui, shown.workflow
    image = read_volume(CARDIAC / "imagesTr" / HEART)
    right = read_volume(CARDIAC / "labelsTr" / HEART).array == WALL
    node = add_volume(shown.host.scene, np.asarray(image.array), "Cine MR")
    node.SetIJKToRASMatrix(vtk_matrix(image.ijk_to_ras))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    workflow.state.volume, segmentation = node, new_segmentation(node)
    there = np.flatnonzero(right.any(axis=(1, 2)))
    outlined = sorted({int(there[0]), int(there[len(there) // 2]), int(there[-1])})
    drawn = np.zeros(right.shape, np.uint8)
    drawn[outlined] = right[outlined]
    segment_id = draw(segmentation, "Wall", drawn, matrix_of(node))
    workflow.state.segmentation = segmentation

    def now() -> np.ndarray:
        return segment_mask(segmentation, segment_id, right.shape) > 0

    shown.open("reviewPage")
    says = f"Wall: outlined on {len(outlined)} axial slices; the slices between follow."
    shown.host.wait(lambda: ui.outlinedLabel.text == says and ui.followButton.enabled, LONG)
    picture(shown, "reviewPage", "8-outlined.png")

    # The worker dies; nothing is lost.
    ui.followButton.click()
    shown.host.wait(lambda: "learning" in ui.statusLabel.text, LONG)
    os.kill(shown.worker._talk.worker["pid"], signal.SIGKILL)
    shown.host.wait(lambda: shown.asks.errors, LONG)
    assert "SIGKILL" in shown.asks.errors.pop().what and np.array_equal(now(), drawn > 0)

    # The slices between follow.
    shown.host.wait(lambda: ui.followButton.enabled, LONG)
    ui.followButton.click()
    shown.host.wait(lambda: workflow.following.run_of(segmentation) is None, VERY_LONG)
    assert shown.asks.errors == [] and f"Followed {len(outlined)} outlined slices of Wall" in ui.statusLabel.text
    shown.host.wait(ui.followedContents.isVisible, LONG)
    picture(shown, "reviewPage", "9-between.png")
    between = [number for number in range(there[0], there[-1]) if number not in outlined]
    found = now()
    assert np.array_equal(found[outlined], right[outlined]) and dice(found[between], right[between]) > 0.5
    ui.keepFollowedButton.click()
    shown.host.settle(0.2)
    assert not ui.followedContents.isVisible() and np.array_equal(now(), found)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))
