"""The journey of a user in a real 3D Slicer; its exit status is 0 when every step is well.

    Slicer --testing --no-splash --additional-module-paths APFormerSlicer --python-script Testing/run_in_slicer.py

The Python packages of the module are installed into that Slicer where they are missing. After the script's name,
`--volume FILE` takes an abdominal CT from a file, otherwise Slicer's sample CTLiver is downloaded; `--minutes N` is the
time for the fine-tuning and `--base NAME` the model it begins with. Models are written to a temporary folder, or to
`--models FOLDER`; the user's own are not touched.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import slicer

MODEL, LABEL, LIVER = "liver-ct", "Liver", "10200004"  # SNOMED CT: liver structure
LEAST_ML, MOST_ML = 700.0, 3500.0  # a liver of an adult, healthy or not
LONG = 900.0  # seconds for one segmentation, on two cores
STEP = 0.05  # seconds between looks at Slicer's events
PATIENTS, SLICES = 8, 3  # of the data set that is fine-tuned on: slabs of the one CT, as if of other patients
MINUTES = 3.0


def patiently(over: Callable[[], bool], what: str, seconds: float = LONG) -> None:
    """Let Slicer's windows live until something is over."""
    end = time.monotonic() + seconds
    while not over():
        slicer.app.processEvents()
        if time.monotonic() > end:
            raise TimeoutError(f"{what} is not over after {seconds:.0f} s")
        time.sleep(STEP)


def load(path: str | None) -> Any:
    """The CT, as a volume node."""
    if path:
        return slicer.util.loadVolume(path)
    import SampleData

    return SampleData.downloadSample("CTLiver")


def liver_ml(segmentation: Any, volume: Any) -> float:
    """The segment's volume on the grid of the image."""
    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(LABEL)
    assert segment_id, f"there is no segment {LABEL}"
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)
    spacing = volume.GetSpacing()
    return float((mask > 0).sum()) * spacing[0] * spacing[1] * spacing[2] / 1000


def check_result(segmentation: Any, volume: Any) -> None:
    """A liver of a liver's size, with its code, on the image's grid, and where it came from."""
    import vtk
    from APFormerSlicerLib.scene.provenance import of_node

    found = liver_ml(segmentation, volume)
    print(f"  {LABEL}: {found:.0f} mL", flush=True)
    assert LEAST_ML < found < MOST_ML, f"{found:.0f} mL is no liver"
    segment = segmentation.GetSegmentation().GetSegment(segmentation.GetSegmentation().GetSegmentIdBySegmentName(LABEL))
    tag = vtk.mutable("")
    assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag) and LIVER in str(tag), f"code: {tag}"
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is volume, "the reference geometry is another volume's"
    assert of_node(segmentation).model == MODEL


def the_panel_opens(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    slicer.util.selectModule("APFormerSlicer")
    slicer.app.processEvents()
    assert panel().ui.segmentButton is not None and panel().ui.modelList.count > 0, "no models are listed"
    assert panel().workflow.state.volume is volume, "the only volume was not chosen by itself"


def a_script_segments(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    from APFormerSlicer import APFormerSlicerLogic

    logic = APFormerSlicerLogic()
    try:
        logic.install()
        segmentation = logic.segment(volume, model=MODEL, device="cpu")
    finally:
        logic.close()
    check_result(segmentation, volume)
    slicer.mrmlScene.RemoveNode(segmentation)


def the_button_cancels_and_segments(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    state, button = panel().workflow.state, panel().ui.segmentButton
    state.volume, state.model, state.device, state.segmentation = volume, MODEL, "cpu", None
    slicer.app.processEvents()
    button.click()
    assert panel().segment.running is not None, f"not started: {panel().ui.preflightLabel.text}"
    button.click()
    patiently(lambda: panel().segment.running is None, "cancelling", 60)
    assert state.segmentation is None, "a cancelled job left a segmentation"
    button.click()
    assert panel().segment.running is not None, f"not started: {panel().ui.preflightLabel.text}"
    patiently(lambda: panel().segment.running is None, "the segmentation")
    assert state.segmentation is not None, panel().ui.statusLabel.text
    check_result(state.segmentation, volume)


def a_region_is_made_drawn_hidden_and_removed(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    """By "Create new" around the result, then as somebody drags it; nobody tells the panel of that."""
    ui, state = panel().ui, panel().workflow.state
    whole = panel().workflow.choice()
    patiently(lambda: said("GB"), "the estimate of the volume", 60)
    region = ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
    slicer.app.processEvents()
    assert state.roi is region and min(region.GetSize()) > 0, "the new region is empty"
    assert region.GetDisplayNode().GetHandlesInteractive(), "the new region cannot be dragged"
    assert max(region.GetSize()) < extent_mm(volume), "the new region is not around the segments"
    patiently(lambda: said("GB"), "the estimate of the region", 60)
    size = region.GetSize()
    region.SetSize(0.0, 0.0, 0.0)
    patiently(lambda: not ui.segmentButton.enabled, "noticing that the region is empty", 10)
    region.SetSize(*size)
    patiently(lambda: ui.segmentButton.enabled and said("GB"), "noticing that the region is drawn", 60)
    region.SetDisplayVisibility(False)
    patiently(lambda: said("is hidden"), "noticing that the region is hidden", 60)
    slicer.mrmlScene.RemoveNode(region)
    slicer.app.processEvents()
    assert state.roi is None and panel().workflow.choice() == whole, "a removed region is still chosen"


def segments_are_shown_in_3d(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    """From a layout without a 3D view; then from one with it, by the same button."""
    ui, segmentation, manager = panel().ui, panel().workflow.state.segmentation, slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    slicer.app.processEvents()
    ui.show3DButton.click()
    slicer.app.processEvents()
    names = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    assert segmentation.GetSegmentation().ContainsRepresentation(names) and ui.show3DButton.checked
    views = [manager.threeDWidget(number).threeDView() for number in range(manager.threeDViewCount)]
    assert any(view.mrmlViewNode().IsMappedInLayout() for view in views), "there is no 3D view"
    bounds = [0.0] * 6
    segmentation.GetRASBounds(bounds)
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):  # the stand-in has none
        at = camera.GetFocalPoint()
        within = [
            low <= at[axis] <= high for axis, (low, high) in enumerate(zip(bounds[::2], bounds[1::2], strict=True))
        ]
        assert all(within), f"the 3D view looks at {at}, the segments are within {bounds}"
    ui.show3DButton.click()
    assert not segmentation.GetSegmentation().ContainsRepresentation(names) and not ui.show3DButton.checked
    ui.show3DButton.click()
    panel().workflow.state.segmentation = None
    slicer.app.processEvents()
    assert not ui.show3DButton.checked, "the button stays pressed without a segmentation"
    panel().workflow.state.segmentation = segmentation


def another_volume_is_queued_and_a_second_panel_agrees(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    state, ui, segmenting = panel().workflow.state, panel().ui, panel().workflow.segmenting
    mine = state.segmentation
    other = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(volume)[:3].copy(), name="Another")
    second = slicer.modules.apformerslicer.createNewWidgetRepresentation().self().panel
    ui.segmentButton.click()
    state.volume = other
    slicer.app.processEvents()
    assert ui.segmentButton.text == second.ui.segmentButton.text == "Segment", "the button is about another volume"
    ui.segmentButton.click()
    slicer.app.processEvents()
    assert ui.segmentButton.text == second.ui.segmentButton.text == "Cancel", ui.preflightLabel.text
    assert segmenting.run_of(volume) is not None and segmenting.run_of(other) is not None, "one was not queued"
    second.ui.segmentButton.click()  # the job of the other panel, about the chosen volume
    patiently(lambda: segmenting.run_of(other) is None, "cancelling the one that waits", 60)
    patiently(lambda: segmenting.run_of(volume) is None, "the one that ran on")
    state.volume, state.segmentation = volume, mine
    check_result(mine, volume)
    slicer.mrmlScene.RemoveNode(other)


def an_accepted_segment_is_asked_about(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    from APFormerSlicerLib.workflow import PreciousError

    workflow = panel().workflow
    before = liver_ml(workflow.state.segmentation, volume)
    try:
        workflow.segment()
    except PreciousError as error:
        assert LABEL in error.names, error.names
    else:
        raise AssertionError("an accepted segment would be replaced unasked")
    panel().ui.segmentButton.click()  # with --testing, the answer is no
    slicer.app.processEvents()
    assert workflow.segmenting.run_of(volume) is None and before == liver_ml(workflow.state.segmentation, volume)


def what_is_removed_is_chosen_no_more(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    state, ui, mine = panel().workflow.state, panel().ui, panel().workflow.state.segmentation
    other = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(volume)[:3].copy(), name="Another")
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Another's")
    state.volume, state.segmentation = other, drawn
    settled = time.monotonic() + 0.5  # a little after a volume came, the only one there is would be chosen
    while time.monotonic() < settled:
        slicer.app.processEvents()
    slicer.mrmlScene.RemoveNode(drawn)
    slicer.app.processEvents()
    assert state.segmentation is None and ui.segmentationSelector.currentNode() is None, "another one was chosen"
    slicer.mrmlScene.RemoveNode(other)
    slicer.app.processEvents()
    assert state.volume is None and ui.volumeSelector.currentNode() is None, "another volume was chosen"
    state.volume, state.segmentation = volume, mine


def a_stored_case_is_opened(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    ui, state, mine = panel().ui, panel().workflow.state, panel().workflow.state.segmentation
    ui.casesTable.selectRow(0)
    slicer.app.processEvents()
    ui.openCaseButton.click()
    patiently(lambda: state.volume is not volume, "opening the case", 120)
    found = liver_ml(state.segmentation, state.volume)
    assert abs(found - liver_ml(mine, volume)) < 0.5, f"{found} mL came back"
    for node in (state.segmentation, state.volume):
        slicer.mrmlScene.RemoveNode(node)
    state.volume, state.segmentation = volume, mine


def a_correction_can_be_undone_and_the_result_is_accepted(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    turn_to("reviewPage")
    ui, segmentation = panel().ui, panel().workflow.state.segmentation
    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(LABEL)
    before = liver_ml(segmentation, volume)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)
    mask[mask.any(axis=(1, 2)).argmax()] = 0  # its lowest slice
    ui.segmentEditor.saveStateForUndo()
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment_id, volume)
    after = liver_ml(segmentation, volume)
    ui.segmentEditor.undo()
    assert after < before == liver_ml(segmentation, volume), f"{before} mL, corrected {after} mL, not undone"
    if ui.nextPlaceButton.enabled:
        left = ui.placesLabel.text
        ui.nextPlaceButton.click()
        patiently(lambda: ui.placesLabel.text != left, "the next place", 60)
    ui.acceptButton.click()
    patiently(lambda: ui.segmentsTable.item(0, 2).text() == "completed", "accepting", 60)


def the_case_is_collected(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    turn_to("casesPage")
    ui, workflow = panel().ui, panel().workflow
    dataset = workflow.collecting.create(folder / "site", workflow.models.find(MODEL))
    ui.patientEdit.setText("patient 0")
    slicer.app.processEvents()
    assert ui.addCaseButton.enabled, ui.siteLabel.text
    ui.addCaseButton.click()
    patiently(lambda: workflow.collecting.storing is None, "storing the case", 300)
    assert ui.casesTable.rowCount == 1, ui.siteReportLabel.text
    for number, (image, labels) in enumerate(slabs(volume, workflow), 1):
        dataset.add(image, labels, patient=f"patient {number}", status="completed")
    workflow.collecting.changed.emit()
    assert ui.casesTable.rowCount == PATIENTS


def a_folder_is_worked_through(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    """Segmented in the background, then accepted, stored and gone on with; each image leaves the scene again."""
    ui, workflow, mine = panel().ui, panel().workflow, panel().workflow.state.segmentation
    work, told, known = workflow.worklist, [], len(workflow.collecting.rows())
    volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    work.add_folder(halves(volume, workflow, folder / "new"), lambda *what: told.append(what))
    patiently(lambda: bool(told), "looking through the folder", 60)
    assert told == [("", None)] and [item.status for item in work.items] == ["waiting", "waiting"], told
    turn_to("segmentPage")
    ui.workSection.collapsed = False
    patiently(lambda: ui.workSegmentButton.enabled, "listing the images", 10)
    ui.workSegmentButton.click()
    patiently(lambda: not work.busy, "segmenting the list")
    assert all(item.doubt is not None for item in work.items), work.summary
    patiently(lambda: ui.workNextButton.enabled, "listing the results", 10)
    ui.workNextButton.click()
    for number in (1, 2):
        patiently(lambda: work.current is not None and ui.storeNextButton.enabled, f"opening image {number}", 60)
        ui.volumesTableButton.click()
        ui.storeNextButton.click()
        patiently(lambda number=number: len(workflow.collecting.rows()) == known + number, "storing the case", 300)
    patiently(lambda: work.current is None, "unloading the last image", 60)
    assert work.summary == "2 of 2 stored", work.summary
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == volumes, "an image was left on the scene"
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1, "there is no one table of volumes"
    ui.workSection.collapsed = True
    work.clear()
    workflow.state.volume, workflow.state.segmentation = volume, mine
    slicer.app.processEvents()
    assert not ui.windowComboBox.isHidden(), "no windows are offered for a CT"


def it_is_fine_tuned_adopted_and_rolled_back(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    from APFormerSlicerLib.workflow import Choices

    turn_to("tuningPage")
    ui, workflow = panel().ui, panel().workflow
    workflow.state.model = asked.base  # whose versions are listed
    before = workflow.models.find(asked.base).version
    workflow.tuning.choices = Choices(asked.base, asked.base, minutes=asked.minutes, device="cpu", adopt="never")
    slicer.app.processEvents()
    assert ui.tuneButton.enabled and ui.nameEdit.text == asked.base, ui.tuningLabel.text
    assert abs(ui.minutesSpinBox.value - asked.minutes) < 0.05, "the panel does not show what was chosen"
    for more in (1, 3, 9):  # a slow computer says that it needs more time, and gets it
        ui.minutesSpinBox.setValue(more * asked.minutes)
        slicer.app.processEvents()
        ui.tuneButton.click()
        assert panel().training.running, ui.tuningStatusLabel.text
        patiently(lambda: not panel().training.running, "the fine-tuning", 60 * ui.minutesSpinBox.value + LONG)
        trained = workflow.tuning.training.trained
        if trained is not None:
            break
    assert trained is not None and ui.comparisonTable.rowCount > 1, ui.tuningStatusLabel.text
    print(f"  {trained.reference}: {trained.verdict}", flush=True)
    ui.adoptButton.click()
    patiently(lambda: workflow.models.find(asked.base).version != before, "adopting", 120)
    turn_to("modelsPage")
    patiently(lambda: ui.rollBackButton.enabled, "the versions", 60)
    ui.rollBackButton.click()
    patiently(lambda: workflow.models.find(asked.base).version == before, "rolling back", 120)
    workflow.state.model = MODEL


def the_scene_is_saved_and_comes_back(volume: Any, folder: Path, asked: argparse.Namespace) -> None:
    before, name = liver_ml(panel().workflow.state.segmentation, volume), volume.GetName()
    assert slicer.util.saveScene(str(folder / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    slicer.util.loadScene(str(folder / "scene.mrb"))
    slicer.app.processEvents()
    state = panel().workflow.state
    assert state.volume is not None and state.volume.GetName() == name, "the panel forgot the volume"
    assert state.model == MODEL and state.segmentation is not None, "the panel forgot what it had"
    after = liver_ml(state.segmentation, state.volume)
    assert abs(after - before) < 0.5, f"{before} mL became {after} mL"


def slabs(volume: Any, workflow: Any) -> list[tuple[Any, Any]]:
    """Images and labels of a few slices each, cut from the CT and its segmentation."""
    import numpy as np
    from apformer.volume import Volume
    from APFormerSlicerLib.scene import to_label_map, to_volume

    whole = to_volume(volume)
    labels = to_label_map(workflow.state.segmentation, volume, workflow.models.find(MODEL).labels)
    found = np.flatnonzero(labels.array.any(axis=(1, 2)))
    cut = []
    for first in np.linspace(found[0], found[-1] + 1 - SLICES, PATIENTS - 1).astype(int):
        matrix = whole.ijk_to_ras.copy()
        matrix[:3, 3] += first * matrix[:3, 2]
        part = slice(first, first + SLICES)
        cut.append((Volume(whole.array[part], matrix, "CT"), Volume(labels.array[part], matrix)))
    return cut


def halves(volume: Any, workflow: Any, folder: Path) -> Path:
    """A folder with the CT below and above the middle of the liver, as files of two patients."""
    import numpy as np
    from apformer.files import write_scalar
    from apformer.volume import Volume
    from APFormerSlicerLib.scene import to_label_map, to_volume

    folder.mkdir()
    whole = to_volume(volume)
    labels = to_label_map(workflow.state.segmentation, volume, workflow.models.find(MODEL).labels)
    middle = int(np.median(np.flatnonzero(labels.array.any(axis=(1, 2)))))
    for name, first, part in (("lower", 0, whole.array[:middle]), ("upper", middle, whole.array[middle:])):
        matrix = whole.ijk_to_ras.copy()
        matrix[:3, 3] += first * matrix[:3, 2]
        write_scalar(folder / f"{name}.nrrd", Volume(np.ascontiguousarray(part), matrix, "CT"))
    return folder


def said(words: str) -> bool:
    """Whether the line beside the button has them."""
    return words in panel().ui.preflightLabel.text


def extent_mm(volume: Any) -> float:
    """The longest side of the volume."""
    return max(n * step for n, step in zip(volume.GetImageData().GetDimensions(), volume.GetSpacing(), strict=True))


def turn_to(page: str) -> None:
    panel().ui.pages.setCurrentWidget(getattr(panel().ui, page))
    slicer.app.processEvents()


def panel() -> Any:
    return slicer.modules.apformerslicer.widgetRepresentation().self().panel


STEPS = (
    the_panel_opens,
    a_script_segments,
    the_button_cancels_and_segments,
    a_region_is_made_drawn_hidden_and_removed,
    segments_are_shown_in_3d,
    another_volume_is_queued_and_a_second_panel_agrees,
    a_correction_can_be_undone_and_the_result_is_accepted,
    an_accepted_segment_is_asked_about,
    what_is_removed_is_chosen_no_more,
    the_case_is_collected,
    a_stored_case_is_opened,
    a_folder_is_worked_through,
    it_is_fine_tuned_adopted_and_rolled_back,
    the_scene_is_saved_and_comes_back,
)


def journey(asked: argparse.Namespace) -> None:
    """Go through the steps, which build on each other; an error at the first that fails."""
    assert hasattr(slicer.modules, "apformerslicer"), "Slicer did not load the module; see --additional-module-paths"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows: the worker may hold a file yet
        os.environ["APFORMER_MODELS"] = asked.models or str(Path(folder) / "models")  # of the panel and its workers
        volume = load(asked.volume)
        for step in STEPS:
            print(step.__name__.replace("_", " "), flush=True)
            step(volume, Path(folder), asked)
    print("All steps are well.", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", help="an abdominal CT; default: Slicer's sample CTLiver")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for the fine-tuning")
    parser.add_argument("--base", default=MODEL, help="the model that is fine-tuned")
    parser.add_argument("--models", help="folder for models; default: a temporary one")
    try:
        journey(parser.parse_args(arguments))
    except BaseException:  # noqa: BLE001 -- whatever it is, Slicer must end and say that it failed
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    with suppress(Exception):
        sys.stdout.flush()
    slicer.util.exit(status)
