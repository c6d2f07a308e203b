"""The journey of a user in a real 3D Slicer; its exit status is 0 when every step is well.

    Slicer --testing --no-splash --additional-module-paths APFormerSlicer --python-script Testing/run_in_slicer.py

The Python packages of the module are installed into that Slicer where they are missing. `--volume FILE` after the
script's name takes an abdominal CT from a file; otherwise Slicer's sample CTLiver is downloaded.
"""

from __future__ import annotations

import argparse
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


def the_panel_opens(volume: Any, folder: Path) -> None:
    slicer.util.selectModule("APFormerSlicer")
    slicer.app.processEvents()
    assert panel().ui.segmentButton is not None and panel().ui.modelList.count > 0, "no models are listed"


def a_script_segments(volume: Any, folder: Path) -> None:
    from APFormerSlicer import APFormerSlicerLogic

    logic = APFormerSlicerLogic()
    try:
        logic.install()
        segmentation = logic.segment(volume, model=MODEL, device="cpu")
    finally:
        logic.close()
    check_result(segmentation, volume)
    slicer.mrmlScene.RemoveNode(segmentation)


def the_button_cancels_and_segments(volume: Any, folder: Path) -> None:
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


def the_segment_has_a_surface(volume: Any, folder: Path) -> None:
    segmentation = panel().workflow.state.segmentation
    assert segmentation.CreateClosedSurfaceRepresentation()
    names = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    assert segmentation.GetSegmentation().ContainsRepresentation(names)


def the_scene_is_saved_and_comes_back(volume: Any, folder: Path) -> None:
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


def panel() -> Any:
    return slicer.modules.apformerslicer.widgetRepresentation().self().panel


STEPS = (
    the_panel_opens,
    a_script_segments,
    the_button_cancels_and_segments,
    the_segment_has_a_surface,
    the_scene_is_saved_and_comes_back,
)


def journey(path: str | None) -> int:
    """Go through the steps, which build on each other; 1 at the first that fails."""
    assert hasattr(slicer.modules, "apformerslicer"), "Slicer did not load the module; see --additional-module-paths"
    volume = load(path)
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            print(step.__name__.replace("_", " "), flush=True)
            step(volume, Path(folder))
    print("All steps are well.", flush=True)
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", help="an abdominal CT; default: Slicer's sample CTLiver")
    try:
        return journey(parser.parse_args(arguments).volume)
    except BaseException:  # noqa: BLE001 -- whatever it is, Slicer must end and say that it failed
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    status = main(sys.argv[1:])
    with suppress(Exception):
        sys.stdout.flush()
    slicer.util.exit(status)
