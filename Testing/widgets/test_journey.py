"""The five steps in one sitting, with the real worker processes on real data.

With APFORMER_SCREENSHOTS=FOLDER a picture of each step is written there.
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
from panel_samples import ROOT, Shown, add_volume, shown_panel

if TYPE_CHECKING:
    from apformer.volume import Volume

DATA = Path(os.environ.get("APFORMER_DATA") or ROOT.parent / "shared" / "data") / "hippocampus-mr"
PICTURES = os.environ.get("APFORMER_SCREENSHOTS")
MODEL = "hippocampus-mr"
PATIENTS = 8  # the fewest for one split
SMALL = "small-hippocampus"  # what is fine-tuned: the bundled model learns too slowly for a test without a GPU
MINUTES = 1.5  # of fine-tuning, most of which a busy computer spends on starting and measuring
LONG, VERY_LONG = 120.0, 600.0  # seconds, on a computer that is busy with other things
STEPS = ("inputSection", "segmentSection", "reviewSection", "siteSection", "tuningSection")

pytestmark = [
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

    save_small_model()
    with shown_panel(a_slicer, tmp_path, worker, ModelLibrary()) as panel:
        yield panel


def save_small_model() -> None:
    """An untrained network of a few hundred weights for the labels of `MODEL`, as a version that is active."""
    import copy

    import torch
    from apformer.bundles import ModelLibrary
    from apformer.networks import build_network
    from apformer.training.config import parse_config
    from apformer.training.run import write_bundle
    from training_samples import SETTINGS

    library, settings = ModelLibrary(), copy.deepcopy(SETTINGS)
    labels = [label.as_dict() for label in library.find(MODEL).labels]
    settings |= {"name": SMALL, "description": "Learns fast.", "labels": labels}
    settings["network"]["out_channels"] = 1 + len(labels)
    config = parse_config(settings)
    torch.manual_seed(1)
    weights = build_network(config.network, config.network_arguments).state_dict()
    library.activate(SMALL, library.add_version(lambda folder: write_bundle(config, weights, folder)).version)


def read(name: str) -> tuple[Volume, Volume]:
    from apformer.files import read_volume

    return read_volume(DATA / "imagesTr" / name), read_volume(DATA / "labelsTr" / name)


def cases() -> list[str]:
    return sorted(path.name for path in (DATA / "imagesTr").glob("*.nii.gz"))


def load(shown: Shown, name: str) -> Any:
    from APFormerSlicerLib.scene.geometry import vtk_matrix

    image, _ = read(name)
    node = add_volume(shown.host.scene, np.asarray(image.array), "T1 hippocampus")
    node.SetIJKToRASMatrix(vtk_matrix(image.ijk_to_ras))
    return node


def fill_site(shown: Shown, folder: Path) -> None:
    """Cases of other patients, as colleagues completed them."""
    dataset = shown.workflow.collecting.create(folder, shown.workflow.models.find(MODEL))
    for name in cases()[1:PATIENTS]:
        image, labels = read(name)
        dataset.add(image, labels, patient=name, status="completed")
    shown.workflow.collecting.changed.emit()


def wait_for_status(shown: Shown, text: str) -> None:
    shown.host.wait(lambda: text in shown.ui.statusLabel.text or shown.asks.errors, LONG)


def picture(shown: Shown, step: str, name: str) -> None:
    """The step unfolded, the others folded."""
    if PICTURES is None:
        return
    for section in STEPS:
        getattr(shown.ui, section).collapsed = section != step
    shown.host.settle(0.7)
    shown.window.adjustSize()
    shown.host.settle(0.1)
    shown.host.picture(Path(PICTURES) / name, shown.window, (480, shown.window.sizeHint.height()))


def test_segment_cancel_die_correct_collect_fine_tune_adopt_roll_back_save_and_reload(
    shown: Shown, tmp_path: Path
) -> None:
    ui, workflow = shown.ui, shown.workflow
    shown.choose(load(shown, cases()[0]), MODEL)
    workflow.state.device = "cpu"

    # The worker dies in its first job; the panel tells why and goes on.
    ui.segmentButton.click()
    shown.host.wait(lambda: (shown.worker._talk.worker or {}).get("pid"), LONG)
    os.kill(shown.worker._talk.worker["pid"], signal.SIGKILL)
    shown.host.wait(lambda: shown.asks.errors, LONG)
    assert "SIGKILL" in shown.asks.errors.pop().what and ui.segmentButton.text == "Segment"

    # Preflight in words, a job that is cancelled, one that is not.
    shown.host.wait(lambda: ui.preflightLabel.text.startswith("CPU"), LONG)
    picture(shown, "inputSection", "1-input.png")
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
    picture(shown, "segmentSection", "2-segment.png")

    # A slice is corrected, the places are visited, the result accepted.
    shown.unfold("reviewSection")
    shown.host.wait(lambda: ui.segmentsTable.rowCount == 2)
    before = ui.segmentsTable.item(0, 1).text()
    correct_a_slice(shown, result)
    shown.host.wait(lambda: ui.segmentsTable.item(0, 1).text() != before)
    ui.uncertaintyCheckBox.setChecked(True)
    if ui.nextPlaceButton.enabled:
        ui.nextPlaceButton.click()
    picture(shown, "reviewSection", "3-review.png")
    ui.acceptButton.click()

    # The case joins those of colleagues.
    shown.unfold("siteSection")
    fill_site(shown, tmp_path / "hippocampus cases of our hospital")
    ui.patientEdit.setText("patient 0")
    ui.addCaseButton.click()
    assert shown.asks.errors == [] and ui.casesTable.rowCount == PATIENTS
    shown.host.wait(lambda: not shown.panel.site._missing, LONG)
    picture(shown, "siteSection", "4-site.png")
    assert [row.status for row in workflow.collecting.rows()] == ["completed"] * PATIENTS

    # A short fine-tuning; the user decides.
    shown.unfold("tuningSection")
    ui.baseComboBox.setCurrentIndex(ui.baseComboBox.findData(SMALL))
    shown.panel.tuning._choose_base()
    ui.minutesSpinBox.setValue(MINUTES)
    ui.adoptComboBox.setCurrentIndex(2)
    ui.tuningDeviceComboBox.setCurrentIndex(1)
    ui.tuneButton.click()
    assert shown.asks.errors == []
    shown.host.wait(lambda: not shown.panel.training.running or len(workflow.tuning.training.rows) > 3, VERY_LONG)
    picture(shown, "tuningSection", "5-fine-tuning.png")
    shown.host.wait(lambda: not shown.panel.training.running, VERY_LONG)
    assert shown.asks.errors == [] and ui.comparisonTable.rowCount > 2
    version = workflow.tuning.training.trained.reference
    before = workflow.models.find(SMALL).version
    ui.adoptButton.click()
    assert workflow.models.find(SMALL).version == version.partition("@")[2] != before
    picture(shown, "tuningSection", "5-decision.png")
    shown.unfold("versionsSection")
    shown.choose(workflow.state.volume, SMALL)
    ui.rollBackButton.click()
    assert workflow.models.find(SMALL).version == before and shown.asks.errors == []

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
