"""The module file, unmodified, in the stand-in: what Slicer loads, its panel, its scripting, its own test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from panel_samples import add_volume, noise

if TYPE_CHECKING:
    from stand_in import Host

HERE = Path(__file__).resolve().parent
_LOAD = """
import json, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import stand_in
with stand_in.start(Path(sys.argv[1]), window=False) as host:
    before, started = set(sys.modules), time.process_time()
    host.load()
    seconds = time.process_time() - started
    print(json.dumps([sorted(set(sys.modules) - before), seconds]))
"""


_OPEN = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
absent = ("torch", "safetensors", "psutil", "monai", "scipy", "matplotlib", "highdicom")
sys.modules.update(dict.fromkeys(absent))  # importing one of them fails
import stand_in
with stand_in.start(Path(sys.argv[1])) as host:
    host.load()
    before = set(sys.modules)
    panel = host.open_module().panel
    loaded = sorted(set(sys.modules) - before)
    import headless, numpy as np
    image = np.random.default_rng(0).integers(0, 1000, (20, 30, 40)).astype(np.int16)
    panel.workflow.state.volume = headless.add_volume(host.scene, image, "MR")
    panel.workflow.state.model = "hippocampus-mr"
    print(json.dumps([loaded, panel.ui.preflightLabel.text]))
    host.raise_slot_errors()
"""


def started(code: str, folder: Path) -> Any:
    """What a process of its own prints last, as JSON."""
    rooms = ("scene", "engine", "workflow")
    folders = [str(HERE.parents[1] / "APFormerSlicer"), str(HERE), *(str(HERE.parent / room) for room in rooms)]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder), *folders],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that come with the program, and none of whoever runs the tests."""
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))


@pytest.fixture
def a_logic(a_slicer: Host) -> Iterator[Any]:
    logic = a_slicer.load().python.APFormerSlicerLogic()
    yield logic
    logic.close()


def test_loading_the_module_imports_nothing_but_itself_and_takes_under_300_ms(tmp_path: Path) -> None:
    """Of processor time: other programs on the computer do not count."""
    loaded, seconds = started(_LOAD, tmp_path)
    assert loaded == ["APFormerSlicer"] and seconds < 0.3


def test_the_panel_opens_without_the_packages_and_loads_no_reader_of_files(tmp_path: Path) -> None:
    """What is loaded there stands between the click on the module and the panel."""
    loaded, line = started(_OPEN, tmp_path)
    assert "APFormerSlicerLib.widgets.panel" in loaded and "The first use installs what is needed" in line
    rooms = ("apformer.datasets", "apformer.training", "apformer.networks", "apformer.inference")
    files = [f"apformer.files.{name}" for name in ("dicom", "read", "write", "nifti", "nrrd", "picture")]
    others = ("SimpleITK", "pydicom", "asyncio", "apformer.commands.segment")
    assert [name for name in loaded if name.startswith((*rooms, *files, *others))] == []


def test_slicer_is_told_what_the_module_is(a_slicer: Host) -> None:
    import qt

    parent = a_slicer.load().parent
    assert (parent.title, parent.categories) == ("APFormerSlicer", ["Segmentation"])
    assert "not a medical device" in parent.helpText and "10.1109/TMI.2023.3247814" in parent.acknowledgementText
    assert parent.contributors and not any(
        "template" in text.lower() for text in (parent.helpText, *parent.contributors)
    )
    assert isinstance(parent.icon, qt.QIcon) and not parent.icon.isNull()


def test_sample_data_is_offered_once_slicer_has_started_and_has_checksums(a_slicer: Host) -> None:
    import SampleData

    a_slicer.load()
    assert SampleData.registered == []
    a_slicer.app.startupCompleted.emit()
    assert {entry["sampleName"] for entry in SampleData.registered} == {"MRHead", "CTLiver"}
    for entry in SampleData.registered:
        method, digest = entry["checksums"].split(":")
        assert method == "SHA256" and len(digest) == 64 and entry["uris"].endswith(f"/SHA256/{digest}")


def test_the_panel_shows_the_models_and_their_labels_are_known_to_slicer(a_slicer: Host) -> None:
    import slicer

    panel = a_slicer.open_module().panel
    texts = [panel.ui.modelList.item(row).text() for row in range(panel.ui.modelList.count)]
    assert len(texts) == 3 and any("liver-ct" in text for text in texts)
    logic = slicer.modules.terminologies.logic()
    assert logic.GetNumberOfCategoriesInTerminology("APFormer liver-ct") == 1


def test_closing_slicer_ends_the_panel_and_its_workers(a_slicer: Host) -> None:
    from apformer.jobs import JobError

    widget = a_slicer.open_module()
    workers = widget.panel._workers
    widget.exit()
    widget.enter()
    widget.cleanup()
    assert widget.panel is None
    widget.exit()  # Slicer leaves the module after its cleanup
    for worker in workers:
        with pytest.raises(JobError, match="closed"):
            worker.submit("segment", {}, print)


def test_the_panel_survives_the_closing_of_the_scene(a_slicer: Host) -> None:
    panel = a_slicer.open_module().panel
    panel.ui.volumeSelector.setCurrentNode(add_volume(a_slicer.scene, noise()))
    assert panel.workflow.state.volume is not None
    a_slicer.close_scene()
    assert panel.workflow.state.volume is None and not panel.ui.segmentButton.enabled
    again = add_volume(a_slicer.scene, noise(), "MR again")
    panel.ui.volumeSelector.setCurrentNode(again)
    assert panel.workflow.state.volume is again


def test_two_panels_show_one_state(a_slicer: Host) -> None:
    import slicer

    first = a_slicer.open_module().panel
    slicer.modules.apformerslicer.createNewWidgetRepresentation()
    second = slicer.modules.apformerslicer.python_widget(1).panel
    node = add_volume(a_slicer.scene, noise())
    first.ui.volumeSelector.setCurrentNode(node)
    a_slicer.settle()
    assert second.workflow.state.volume is node and second.ui.volumeSelector.currentNode() is node


def test_the_modules_own_test_passes_with_the_real_worker(a_slicer: Host) -> None:
    a_slicer.load().instance.runTest()
    assert a_slicer.pip.calls == [] and a_slicer.shown == []


def test_a_script_is_told_what_to_install(a_slicer: Host, a_logic: Any) -> None:
    from apformer.errors import ConfigError

    a_slicer.pip.satisfied = False
    with pytest.raises(ConfigError, match="not installed") as told:
        a_logic.segmentAll([add_volume(a_slicer.scene, noise())], "hippocampus-mr")
    assert "install()" in told.value.remedy


def test_closing_the_scene_under_a_script_ends_its_job_with_a_reason(a_slicer: Host, a_logic: Any) -> None:
    from apformer.errors import APFormerError

    volume = add_volume(a_slicer.scene, noise((40, 40, 40)))
    with pytest.raises(APFormerError, match="scene was closed"):
        a_logic.segment(volume, "hippocampus-mr", progress=lambda _run: a_slicer.scene.Clear(False), device="cpu")


def test_a_script_fine_tunes_with_what_it_was_asked(
    a_slicer: Host, a_logic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apformer.bundles import ModelLibrary
    from apformer.datasets import SiteDataset
    from test_tuning_panel import report
    from workflow_samples import PlayedWorker

    class Played(PlayedWorker):
        """Tells the end of the job when it is waited for."""

        def deliver(self, _seconds: float) -> None:
            self.last.tell("result", **report("1.0.0", adopted=True))

        def close(self) -> None: ...

    monkeypatch.setattr("APFormerSlicerLib.widgets.scripting.HeadlessWorker", lambda *_, **__: Played(tmp_path))
    SiteDataset.create(tmp_path / "site", ModelLibrary().find("liver-ct").labels)
    trained = a_logic.fineTune(tmp_path / "site", name="liver-ours", base="liver-ct", minutes=30, keep=0.3)
    asked = a_logic.scripting._worker.last
    assert (asked.job, asked.fields["name"], asked.fields["base"]) == ("finetune", "liver-ours", "liver-ct")
    assert (asked.fields["seconds"], asked.fields["budget"]) == (1800.0, "keep=0.3")
    assert trained.adopted and trained.verdict == "Better by 0.1."


README, HELP = (HERE.parents[1] / path for path in ("README.md", "APFormerSlicer/Resources/Help/five-minutes.html"))


@pytest.mark.parametrize(("page", "begin", "end"), [(README, "```python\n", "```"), (HELP, "<pre>", "</pre>")])
def test_the_scripts_of_the_pages_use_what_there_is(a_slicer: Host, page: Path, begin: str, end: str) -> None:
    """Every call in the Python block, by name and by its keywords."""
    import ast
    import inspect
    from dataclasses import fields

    from APFormerSlicerLib.widgets.scripting import Scripting
    from APFormerSlicerLib.workflow import Choice, Choices

    script = page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    calls = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call)]
    called = [call for call in calls if ast.unparse(call.func).startswith("logic.")]
    methods = {"segment": Scripting.segment, "segmentAll": Scripting.segment_all, "fineTune": Scripting.fine_tune,
               "install": Scripting.install, "close": Scripting.close}  # fmt: skip
    assert {node.func.attr for node in called} == set(methods)
    choices = {field.name for kind in (Choice, Choices) for field in fields(kind)}
    for node in called:
        known = set(inspect.signature(methods[node.func.attr]).parameters) | choices
        assert {keyword.arg for keyword in node.keywords} <= known, ast.unparse(node)


def test_a_script_cannot_fine_tune_without_a_data_set(a_logic: Any, tmp_path: Path) -> None:
    from apformer.errors import ConfigError

    with pytest.raises(ConfigError) as told:
        a_logic.fineTune(tmp_path, name="liver-ours", base="liver-ct", minutes=1.0)
    assert str(tmp_path) in told.value.what and told.value.remedy
