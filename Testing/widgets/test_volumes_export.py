"""The volumes of the chosen segmentation, from the page Review into a table and a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (5, 6, 7)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


def test_without_segments_there_is_nothing_to_export(shown: Shown) -> None:
    for button in (shown.ui.volumesTableButton, shown.ui.volumesCsvButton):
        assert not button.enabled and button.toolTip


def test_a_table_is_made_once_and_filled_anew(shown: Shown) -> None:
    shown.choose(add_volume(shown.host.scene, noise(), "MR"))
    shown.segment(a_block(SHAPE))
    shown.open("reviewPage")
    for _ in range(2):
        shown.ui.volumesTableButton.click()
    assert shown.host.scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1
    assert shown.ui.volumesLabel.text == "2 volumes are in the table APFormer volumes (module Tables)."


def test_a_file_is_written_where_the_user_says_and_a_full_disk_is_told(shown: Shown, tmp_path: Path) -> None:
    shown.choose(add_volume(shown.host.scene, noise(), "MR"))
    shown.segment(a_block(SHAPE))
    shown.open("reviewPage")
    shown.asks.files = [tmp_path / "volumes.csv", None, tmp_path / "volumes.csv" / "no.csv"]
    shown.ui.volumesCsvButton.click()
    assert len((tmp_path / "volumes.csv").read_text(encoding="utf-8-sig").splitlines()) == 3
    assert shown.ui.volumesLabel.text == "2 volumes are in volumes.csv."
    shown.ui.volumesCsvButton.click()  # the user thought better of it
    assert shown.asks.errors == []
    shown.ui.volumesCsvButton.click()
    assert len(shown.asks.errors) == 1
