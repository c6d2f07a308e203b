"""Several volumes, several panels: each click is about the chosen volume, and what is a person's is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from APFormerSlicerLib.scene import Status
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


def test_segment_on_another_volume_queues_it_and_each_button_is_about_its_volume(shown: Shown) -> None:
    ui = shown.ui
    first = shown.choose(add_volume(shown.host.scene, noise(), "A"))
    ui.segmentButton.click()
    second = shown.choose(add_volume(shown.host.scene, noise(), "B"))
    assert ui.segmentButton.text == "Segment" and ui.segmentButton.enabled
    ui.segmentButton.click()
    assert ui.segmentButton.text == "Cancel" and len(shown.worker.asked) == 1
    assert "B with slices" in ui.statusLabel.text and "waiting for 1 job before it" in ui.statusLabel.text
    shown.worker.last.finish(a_block(SHAPE))
    assert len(shown.worker.asked) == 2
    shown.worker.last.progress(0.5)
    assert "B with slices" in ui.statusLabel.text and ui.progressBar.value == 50
    shown.workflow.state.volume = first
    assert ui.segmentButton.text == "Segment" and ui.statusLabel.text.startswith("Done") and ui.progressBar.isHidden()
    shown.workflow.state.volume = second
    ui.segmentButton.click()
    assert shown.worker.cancelled == ["2"]
    shown.worker.last.tell("cancelled")
    assert ui.statusLabel.text == "Cancelled." and ui.progressBar.isHidden()


def rows(shown: Shown) -> list[tuple[str, str]]:
    """Title and state of the jobs in the table, which can be seen."""
    table = shown.ui.jobsTable
    if table.isHidden():
        return []
    return [(table.item(row, 0).text(), table.item(row, 1).text()) for row in range(table.rowCount)]


def cancel_in_table(shown: Shown, row: int) -> None:
    shown.ui.jobsTable.cellWidget(row, 2).click()


def test_the_table_of_jobs_is_seen_while_the_button_is_not_about_all_of_them(shown: Shown) -> None:
    scene, ui = shown.host.scene, shown.ui
    first = shown.choose(add_volume(scene, noise(), "A"))
    assert rows(shown) == []
    ui.segmentButton.click()
    assert rows(shown) == []
    shown.choose(add_volume(scene, noise(), "B"))
    assert rows(shown) == [("A with slices 1.0.0", "waiting")]  # the worker has not told of it yet
    shown.worker.last.progress(0.4)
    ui.segmentButton.click()
    assert rows(shown) == [("A with slices 1.0.0", "40 %"), ("B with slices 1.0.0", "waiting")]
    shown.workflow.state.volume = first
    assert len(rows(shown)) == 2 and ui.progressBar.value == 40
    shown.worker.last.finish(a_block(SHAPE))
    assert rows(shown) == [("B with slices 1.0.0", "waiting")] and ui.segmentButton.text == "Segment"
    shown.worker.last.finish(a_block(SHAPE))
    assert rows(shown) == []


def test_each_job_is_cancelled_in_the_table_and_the_others_go_on(shown: Shown) -> None:
    for name in "ABC":
        shown.choose(add_volume(shown.host.scene, noise(), name))
        shown.ui.segmentButton.click()
    cancel_in_table(shown, 1)  # B, which waits
    assert [title[0] for title, _ in rows(shown)] == ["A", "C"] and shown.worker.cancelled == []
    cancel_in_table(shown, 0)  # A, which is at work
    assert rows(shown)[0] == ("A with slices 1.0.0", "cancelling")
    shown.worker.last.tell("cancelled")
    assert len(shown.worker.asked) == 2 and rows(shown) == []
    shown.worker.last.finish(a_block(SHAPE))
    assert shown.ui.statusLabel.text.startswith("Done") and shown.asks.errors == []


def test_what_came_of_a_volume_stands_where_it_is_chosen(shown: Shown) -> None:
    first = shown.choose(add_volume(shown.host.scene, noise(), "A"))
    shown.segment(a_block(SHAPE))
    second = shown.choose(add_volume(shown.host.scene, noise(), "B"))
    assert shown.ui.statusLabel.text == ""
    shown.workflow.state.volume = first
    assert shown.ui.statusLabel.text.startswith("Done")
    shown.ui.segmentButton.click()
    shown.workflow.state.volume = second
    shown.worker.last.finish(a_block(SHAPE))
    assert shown.ui.statusLabel.text.startswith("A with slices 1.0.0: Done")


def test_what_came_of_a_volume_is_not_told_of_the_next_scenes(shown: Shown) -> None:
    first = shown.choose(add_volume(shown.host.scene, noise(), "A"))
    number = first.GetID()
    shown.segment(a_block(SHAPE))
    shown.host.close_scene()
    again = shown.choose(add_volume(shown.host.scene, noise(), "another"))
    assert again.GetID() == number and shown.ui.statusLabel.text == ""


def test_an_error_of_a_job_is_told_while_another_is_chosen(shown: Shown) -> None:
    from apformer.jobs import JobError

    shown.choose(add_volume(shown.host.scene, noise(), "A"))
    shown.ui.segmentButton.click()
    shown.choose(add_volume(shown.host.scene, noise(), "B"))
    shown.ui.segmentButton.click()
    shown.worker.last.fail(JobError("A died.", "Memory ran out.", "Close programs."))
    assert [error.what for error in shown.asks.errors] == ["A died."]
    shown.worker.last.finish(a_block(SHAPE))
    assert shown.ui.statusLabel.text.startswith("Done")


def test_a_second_panel_shows_what_the_first_runs(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with shown_panel(shown.host, tmp_path / "second", models=shown.workflow.library) as second:
        shown.choose(add_volume(shown.host.scene, noise(), "A"))
        assert second.ui.segmentButton.text == "Segment"
        shown.ui.segmentButton.click()
        assert second.ui.segmentButton.text == "Cancel"
        shown.worker.last.progress(0.5)
        assert second.ui.progressBar.value == 50 and "A with slices" in second.ui.statusLabel.text
        assert rows(second) == []
        shown.worker.last.finish(a_block(SHAPE))
        assert second.ui.segmentButton.text == "Segment" and second.ui.statusLabel.text.startswith("Done")


def test_a_second_panel_tells_of_anothers_failure_without_a_window(shown: Shown, tmp_path: Path) -> None:
    from apformer.jobs import JobError

    (tmp_path / "second").mkdir()
    with shown_panel(shown.host, tmp_path / "second", models=shown.workflow.library) as second:
        shown.choose(add_volume(shown.host.scene, noise(), "A"))
        shown.ui.segmentButton.click()
        shown.worker.last.fail(JobError("A died.", "Memory ran out.", "Close programs."))
        assert second.ui.statusLabel.text == "A died." == shown.ui.statusLabel.text
        assert len(shown.asks.errors) == 1 and second.asks.errors == []


@pytest.mark.parametrize("agrees", [True, False])
def test_what_was_accepted_is_asked_about_before_it_is_replaced(shown: Shown, agrees: bool) -> None:
    shown.choose(add_volume(shown.host.scene, noise(), "A"))
    node = shown.segment(a_block(SHAPE))
    shown.workflow.reviewing.accept(node)
    shown.asks.agrees = agrees
    asked = len(shown.worker.asked)
    shown.ui.segmentButton.click()
    assert len(shown.asks.questions) == 1 and "anterior (accepted)" in shown.asks.questions[0]
    assert len(shown.worker.asked) == asked + agrees and shown.asks.errors == []
    if agrees:
        shown.worker.last.finish(a_block(SHAPE, 2))
        assert "Replaced: anterior, which was accepted" in shown.ui.statusLabel.text
        shown.ui.segmentEditor.undo()
    rows = shown.workflow.reviewing.rows(node)
    assert rows[0].volume_ml == pytest.approx(8 * 2 / 1000) and rows[0].status == Status.COMPLETED


def test_a_proposal_is_replaced_unasked_and_told(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise(), "A"))
    shown.segment(a_block(SHAPE))
    shown.segment(a_block(SHAPE, 2))
    assert shown.asks.questions == []
    assert "Replaced the earlier anterior, posterior." in shown.ui.statusLabel.text


def test_the_removed_volume_and_segmentation_are_chosen_no_more(shown: Shown) -> None:
    scene = shown.host.scene
    first = shown.choose(add_volume(scene, noise(), "A"))
    other = add_volume(scene, noise(), "B")
    node = shown.segment(a_block(SHAPE))
    shown.workflow.segmenting.start(shown.workflow.choice(other))
    shown.worker.last.finish(a_block(SHAPE))
    scene.RemoveNode(node)
    assert shown.workflow.state.segmentation is None and shown.ui.segmentationSelector.currentNode() is None
    scene.RemoveNode(first)
    assert shown.workflow.state.volume is None and shown.ui.volumeSelector.currentNode() is None
    assert "Load an image and choose it" in shown.ui.preflightLabel.text


def test_adopting_without_a_result_is_told_in_words(shown: Shown) -> None:
    for act in (shown.panel.training._adopt, shown.panel.training._keep_old):
        shown.asks.attempt(act)
    assert len(shown.asks.errors) == 2 and all("no new version" in error.what for error in shown.asks.errors)


class Delivering(PlayedWorker):
    """Gives the result when it is waited for, as the worker of scripts does."""

    def deliver(self, _seconds: float) -> None:
        self.last.finish(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.5)})

    def close(self) -> None: ...


@pytest.fixture
def a_script(a_slicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `scripting`, whose worker plays."""
    from APFormerSlicerLib.widgets import scripting
    from panel_samples import saved_models

    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("APFORMER_MODELS", str(saved_models()))
    monkeypatch.setattr(scripting, "HeadlessWorker", lambda *_, **__: Delivering(tmp_path / "jobs"))
    monkeypatch.setattr(scripting.Install, "missing", lambda *_: False)
    return scripting


def test_all_volumes_of_a_scene_may_be_passed_by_a_script(a_slicer: Any, tmp_path: Path, a_script: Any) -> None:
    script = a_script.Scripting(a_slicer.scene, tmp_path, tmp_path)
    ct = add_volume(a_slicer.scene, noise(), "CT")
    done = script.segment_all([ct], "slices")
    node = done.items[0].run.outcome.written.segmentation_node
    doubt = script._workflow.reviewing.map_node(node, "uncertainty")
    mask = add_volume(a_slicer.scene, a_block(SHAPE), "mask", "vtkMRMLLabelMapVolumeNode")
    again = script.segment_all([ct, doubt, mask, "no node"], "slices")
    assert [item.title for item in again.items] == ["CT", "'no node'"]
    assert [item.status for item in again.items] == ["done", "failed"] and set(again.left_out) == {
        "CT uncertainty",
        "mask",
    }
    script.close()


def test_the_script_in_the_readme_runs_as_it_stands_there(
    a_slicer: Any, a_script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its data set is not there, so that fine-tuning is the one call that is not made."""
    import slicer
    from panel_samples import ROOT

    asked: dict[str, Any] = {}
    monkeypatch.setattr(a_script.Scripting, "install", lambda *_: None)
    monkeypatch.setattr(
        a_script.Scripting, "fine_tune", lambda *_, **choices: Trained("adopt it", asked.update(choices))
    )
    a_slicer.load()
    ct = add_volume(a_slicer.scene, noise() - 1000, "CTLiver")
    add_volume(a_slicer.scene, a_block(SHAPE), "mask", "vtkMRMLLabelMapVolumeNode")
    add_volume(a_slicer.scene, np.full(SHAPE, np.nan, np.float32), "spoiled").SetHideFromEditors(True)
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"slicer": slicer}
    exec(compile(text, "README.md", "exec"), names)
    assert names["segmentation"].GetNodeReference("referenceImageGeometryRef") is ct
    assert "[('CTLiver', 'done', None, '')]" in capsys.readouterr().out
    assert set(names["batch"].left_out) == {"mask", "spoiled"} and asked["keep"] == 0.3


@dataclass
class Trained:
    """What the script prints of a fine-tuning."""

    verdict: str
    report: Any
