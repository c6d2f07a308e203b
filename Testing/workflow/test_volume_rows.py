"""Volumes of structures as a CSV file and as a table of the scene."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.errors import OutputError
from APFormerSlicerLib.workflow import Choice, VolumeRow, Workflow, collect_rows, to_table, write_csv
from APFormerSlicerLib.workflow.tally import AT_ONCE
from headless import draw, matrix_of
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)
COLUMNS = ["case", "structure", "volume_ml", "status", "model", "model_version", "date"]


@pytest.fixture
def a_segmentation(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> Any:
    """One block of the first label that a model proposed, and a segment that a person drew."""
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.finish(a_block(SHAPE))
    node = run.outcome.written.segmentation_node
    draw(node, "=HYPERLINK()", a_block(SHAPE), matrix_of(a_choice.volume_node))
    return node


def rows_of(workflow: Workflow, *nodes: Any) -> list[VolumeRow]:
    told: list[Any] = []
    collect_rows(workflow.reviewing, nodes, told.append)
    (found,) = told
    return [row for node in nodes for row in found.get(node, [])]


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_a_row_tells_case_structure_volume_and_what_segmented_it(a_workflow: Workflow, a_segmentation: Any) -> None:
    proposed, empty, drawn = rows_of(a_workflow, a_segmentation)
    date = "2026-01-02T03:04:05+01:00"
    assert proposed == VolumeRow("MR", "anterior", pytest.approx(0.016), "to review", "slices", "1.0.0", date)
    assert empty.volume_ml == 0.0 and (drawn.status, drawn.model) == ("not started", "")


def test_the_file_opens_in_a_spreadsheet_and_runs_nothing_there(
    a_workflow: Workflow, a_segmentation: Any, tmp_path: Path
) -> None:
    write_csv(tmp_path / "volumes.csv", rows_of(a_workflow, a_segmentation))
    header, first, _, drawn = read(tmp_path / "volumes.csv")
    assert header == COLUMNS and first[:3] == ["MR", "anterior", "0.0160"] and drawn[1] == "'=HYPERLINK()"


@pytest.mark.parametrize("text", ["+1", "-1", "@a", "\t=1", "\r=1", "\uff1d1", " =1"])
def test_whatever_begins_a_formula_is_text(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", [VolumeRow(text, 'Überlauf; "脳"', 1.5, "accepted")])
    (_, row) = read(tmp_path / "a.csv")
    assert row[:3] == [f"'{text}", 'Überlauf; "脳"', "1.5000"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [])
    with pytest.raises(OutputError):
        write_csv(tmp_path / "a.csv" / "b.csv", [])
    assert read(tmp_path / "a.csv") == [COLUMNS]


def test_a_second_table_replaces_the_first_whatever_it_was_renamed_to(
    a_workflow: Workflow, a_segmentation: Any
) -> None:
    rows = rows_of(a_workflow, a_segmentation)
    node = to_table(a_workflow.scene, rows)
    assert [node.GetColumnName(number) for number in range(node.GetNumberOfColumns())] == COLUMNS
    assert node.GetColumnUnitLabel("volume_ml") == "mL" and node.GetNumberOfRows() == 3
    assert node.GetTable().GetColumnByName("volume_ml").GetValue(0) == pytest.approx(0.016)
    node.SetName("Study 7")
    assert to_table(a_workflow.scene, rows[:1]) is node and node.GetNumberOfRows() == 1
    assert node.GetCellText(0, 1) == "anterior"
    assert to_table(a_workflow.scene, []).GetNumberOfRows() == 0
    assert a_workflow.scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_rows_wait_until_large_segments_are_counted_and_leave_out_what_was_removed(
    a_workflow: Workflow, a_worker: PlayedWorker, a_segmentation: Any, a_choice: Choice, make_volume_node: Any
) -> None:
    large = np.ones((AT_ONCE // 10_000 + 1, 100, 100), np.uint8)
    draw(a_segmentation, "body", large, matrix_of(a_choice.volume_node))
    other = a_workflow.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    told: list[Any] = []
    a_worker.held = []
    collect_rows(a_workflow.reviewing, [a_segmentation, other], told.append)
    assert told == []
    a_workflow.scene.RemoveNode(other)
    a_worker.let_go()
    ((node, rows),) = told[0].items()
    assert node is a_segmentation and rows[-1].volume_ml == pytest.approx(large.size * 2 / 1000)
