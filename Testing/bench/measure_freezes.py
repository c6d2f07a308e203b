"""Where Slicer's window stands still during a user's journey on a large CT, and what it is at then: JSON.

    Slicer --no-splash --additional-module-paths APFormerSlicer --python-script Testing/bench/measure_freezes.py \\
        --volume CT
    .venv/bin/python Testing/bench/measure_freezes.py --stand-in --volume CT

The image of `--volume` is brought to `--size` (512 x 512 x 300 voxels) by repeating voxels. A timer of 20 ms on the
main thread notes when it was late; a thread looks at the main thread's stack every 10 ms meanwhile. While C++ holds
Python's lock it cannot; then it looks when the lock is free, which is at the end of that very call. What is late for
Slicer's own drawing or loading shows in the stack: `ours` counts gaps in whose stacks a file of the module is. With
`--fail-above MS` the exit status is 1 when one of these is longer.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TICK_MS, LOOK_MS = 20, 10
LATE_MS = 60  # from which a stack is wanted
DEEPEST = 14  # frames
MODEL = "liver-ct"
MODULE_MS, PANEL_MS, STOP_MS = 5.0, 150.0, 100.0  # the bars
LONG = 1800.0  # seconds for one step, on two busy cores


@dataclass(frozen=True)
class Gap:
    """How long no event was let through, and how much of it the main thread computed: the rest is what it waited for
    disks, locks and, on a busy computer, other programs."""

    ms: float
    busy_ms: float
    stacks: list[str]


class Watch:
    """Gaps between ticks of a timer on the main thread, by step, with stacks."""

    def __init__(self, qt: Any) -> None:
        self.steps: dict[str, dict[str, Any]] = {}
        self._gaps: list[Gap] = []
        self._seen: Counter[str] = Counter()  # stacks since the last tick
        self._last, self._cpu = time.perf_counter(), time.thread_time()
        self._over = threading.Event()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What happens in the block, and what it leaves to the event loop until its end."""
        self._tick()
        self._gaps.clear()
        began = time.perf_counter()
        yield
        self._tick()
        self.steps[name] = self._summary(time.perf_counter() - began)

    def stop(self) -> None:
        self._timer.stop()
        self._over.set()

    def _tick(self, *_unused: Any) -> None:
        gap = 1000 * (time.perf_counter() - self._last) - TICK_MS
        busy = 1000 * (time.thread_time() - self._cpu)
        stacks = [stack for stack, _ in self._seen.most_common(3)] if gap >= LATE_MS else []
        self._gaps.append(Gap(gap, min(gap, busy), stacks))
        self._seen.clear()
        self._last, self._cpu = time.perf_counter(), time.thread_time()

    def _look(self) -> None:
        main = threading.main_thread().ident or 0
        while not self._over.wait(LOOK_MS / 1000):
            if 1000 * (time.perf_counter() - self._last) > LATE_MS:
                self._seen[_stack_of(main)] += 1

    def _summary(self, seconds: float) -> dict[str, Any]:
        late = sorted((gap for gap in self._gaps if gap.ms >= LATE_MS), key=lambda gap: -gap.ms)
        own = [gap for gap in late if any(map(_is_ours, gap.stacks))]
        return {
            "seconds": round(seconds, 2),
            "largest_ms": round(max((gap.ms for gap in self._gaps), default=0.0)),
            "largest_of_ours_ms": round(max((gap.ms for gap in own), default=0.0)),
            "largest_of_ours_busy_ms": round(max((gap.busy_ms for gap in own), default=0.0)),
            f"above_{STOP_MS:.0f}_ms": sum(gap.ms > STOP_MS for gap in late),
            "gaps": [{"ms": round(gap.ms), "busy_ms": round(gap.busy_ms), "stacks": gap.stacks} for gap in late[:5]],
        }


def _stack_of(thread: int) -> str:
    """The innermost first: "kept.py:70 read < kept.py:130 overlay". No frame is kept: one that outlives its call keeps
    what is in it, such as a painter that Qt has to see ended."""
    told, frame = [], sys._current_frames().get(thread)
    while frame is not None and len(told) < DEEPEST:
        told.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(told)


def _is_ours(stack: str) -> bool:
    return any(name in stack for name in OURS)


OURS = {
    f"{path.name}:"
    for room in ("apformer", "APFormerSlicerLib")
    for path in (ROOT / "APFormerSlicer" / room).rglob("*.py")
    if path.name != "__init__.py"
}


def patiently(over: Callable[[], Any], what: str) -> None:
    """Let the window live until something is over."""
    import slicer

    end = time.monotonic() + LONG
    while not over():
        slicer.app.processEvents()
        if time.monotonic() > end:
            raise TimeoutError(f"{what} is not over after {LONG:.0f} s")
        time.sleep(0.002)


def rest(seconds: float = 0.5) -> None:
    """What was put off until the event loop runs."""
    end = time.monotonic() + seconds
    patiently(lambda: time.monotonic() > end, "resting")


def module_file_ms() -> float:
    """How long Slicer's start waits for the module file; of several, the shortest."""
    path = ROOT / "APFormerSlicer" / "APFormerSlicer.py"
    taken = []
    for number in range(5):
        spec = importlib.util.spec_from_file_location(f"measured_{number}", path)
        assert spec is not None and spec.loader is not None
        began = time.perf_counter()
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        taken.append(1000 * (time.perf_counter() - began))
    return round(min(taken), 2)


def large(path: str, size: tuple[int, int, int]) -> tuple[Any, Any]:
    """Voxels (k, j, i) and ijkToRAS of the image at another size."""
    import numpy as np
    from apformer.files import read_volume

    volume = read_volume(Path(path))
    array = np.asarray(volume.array, np.int16)
    indices = [np.arange(wanted) * have // wanted for wanted, have in zip(size[::-1], array.shape, strict=True)]
    matrix = volume.ijk_to_ras.copy()
    for axis in range(3):
        matrix[:3, axis] *= array.shape[2 - axis] / size[axis]
    return np.ascontiguousarray(array[np.ix_(*indices)]), matrix


def add_volume(array: Any, matrix: Any) -> Any:
    """As when Slicer loaded an image: a node in the views."""
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image, place = vtk.vtkImageData(), vtk.vtkMatrix4x4()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    place.DeepCopy(matrix.ravel().tolist())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(place)
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def journey(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import qt
    import slicer

    os.environ["APFORMER_MODELS"] = str(folder / "models")
    figures: dict[str, Any] = {"module_file_ms": module_file_ms()}
    array, matrix = large(asked.volume, asked.size)
    watch = Watch(qt)
    try:
        with watch.step("open the panel"):
            began, busy = time.perf_counter(), time.thread_time()
            slicer.util.selectModule("APFormerSlicer")
            figures["panel_ms"] = round(1000 * (time.perf_counter() - began))
            figures["panel_busy_ms"] = round(1000 * (time.thread_time() - busy))  # the rest is waiting
            rest()
        panel = slicer.modules.apformerslicer.widgetRepresentation().self().panel
        _steps(watch, panel, array, matrix, asked, folder)
    finally:
        watch.stop()
    return {**figures, "voxels": list(asked.size), "steps": watch.steps}


def _steps(watch: Watch, panel: Any, array: Any, matrix: Any, asked: argparse.Namespace, folder: Path) -> None:
    ui, workflow = panel.ui, panel.workflow
    with watch.step("load"):
        volume = add_volume(array, matrix)
        rest()
    with watch.step("estimate"):
        workflow.state.model, workflow.state.device = asked.model, "cpu"
        workflow.state.maps = ["uncertainty", "kept_tokens"]
        workflow.state.volume = volume
        patiently(lambda: "CPU" in ui.preflightLabel.text or "cpu" in ui.preflightLabel.text, "the estimate")
    with watch.step("segment"):
        ui.segmentButton.click()
        patiently(lambda: workflow.segmenting.run_of(volume) is None, "the segmentation")
        rest(2.0)
    assert workflow.state.segmentation is not None, ui.statusLabel.text
    with watch.step("review"):
        ui.pages.setCurrentWidget(ui.reviewPage)
        rest(1.0)
        for box in (ui.uncertaintyCheckBox, ui.keptMapCheckBox):
            box.setChecked(True)
            rest()
        if ui.nextPlaceButton.enabled:
            ui.nextPlaceButton.click()
        ui.acceptButton.click()
        rest(1.0)
    with watch.step("show in 3D"):  # the surfaces are made by Slicer
        ui.show3DButton.click()
        rest(1.0)
        ui.show3DButton.click()
        rest()
    with watch.step("make a data set"):
        told: list[Any] = []
        workflow.collecting.create_aside(folder / "site", workflow.models.find(asked.model), told.append)
        patiently(lambda: told, "making the data set")
        rest()
    with watch.step("add the case"):
        ui.pages.setCurrentWidget(ui.casesPage)
        ui.patientEdit.setText("patient 1")
        rest()
        assert ui.addCaseButton.enabled, ui.siteLabel.text
        ui.addCaseButton.click()
        patiently(lambda: workflow.collecting.storing is None, "storing the case")
        rest(2.0)
    assert ui.casesTable.rowCount == 1, ui.siteReportLabel.text
    with watch.step("mark the case"):
        ui.casesTable.selectRow(0)
        workflow.collecting.set_status_aside("case-0001", "flagged", told.append)
        patiently(lambda: len(told) == 2, "marking the case")
        rest()
    with watch.step("open the case"):
        before = workflow.state.volume
        ui.casesTable.selectRow(0)
        ui.openCaseButton.click()
        patiently(lambda: workflow.state.volume is not before, "opening the case")
        rest(2.0)
    with watch.step("make and drag a region"):
        region = ui.roiSelector.addNode("vtkMRMLMarkupsROINode")
        center = list(region.GetCenter())
        for number in range(30):
            region.SetCenter(center[0] + number, center[1], center[2])
            rest(0.03)
        rest(2.0)
    assert told == [None, None], told


def above(figures: dict[str, Any], bar_ms: float) -> list[str]:
    """Steps of ours that stood still for longer, in words."""
    return [
        f"{name}: {found['largest_of_ours_ms']} ms"
        for name, found in figures["steps"].items()
        if found["largest_of_ours_ms"] > bar_ms
    ]


@contextlib.contextmanager
def slicer_or_stand_in(asked: argparse.Namespace, folder: Path) -> Iterator[None]:
    """Qt and Slicer as they are, or as the tests have them."""
    if not asked.stand_in:
        yield
        return
    for name in ("widgets", "workflow", "scene", "engine"):
        sys.path.insert(0, str(ROOT / "Testing" / name))
    sys.path.insert(0, str(ROOT / "APFormerSlicer"))
    import stand_in

    (folder / "settings").mkdir()
    with stand_in.start(folder / "settings", testing=True) as host:
        host.load()
        yield


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--volume", required=True, help="an abdominal CT, any size")
    parser.add_argument("--size", type=_size, default=(512, 512, 300), metavar="I,J,K", help="default: 512,512,300")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--stand-in", action="store_true", help="PySide6 in place of Slicer's Qt")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there, too")
    parser.add_argument(
        "--fail-above", type=float, metavar="MS", help="exit with 1 when we stopped the window for longer"
    )
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, slicer_or_stand_in(asked, Path(name)):
        figures = journey(asked, Path(name))
    bars = {"module_file_ms": MODULE_MS, "panel_ms": PANEL_MS, "stop_ms": STOP_MS}
    figures |= {
        "bars": bars,
        "above_bar": above(figures, STOP_MS),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    text = json.dumps(figures, indent=1)
    print(text, flush=True)
    if asked.output is not None:
        asked.output.write_text(text, encoding="utf-8")
    return 1 if asked.fail_above is not None and above(figures, asked.fail_above) else 0


def _size(text: str) -> tuple[int, int, int]:
    i, j, k = (int(part) for part in text.split(","))
    return i, j, k


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
    except BaseException:  # noqa: BLE001 -- whatever it is, Slicer must end and say that it failed
        traceback.print_exc()
        status = 1
    if "--stand-in" in sys.argv:
        sys.exit(status)
    import slicer

    slicer.util.exit(status)
