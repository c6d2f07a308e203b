"""How bright a CT is shown, chosen beside the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_samples import Shown, add_volume, noise, shown_panel


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


@pytest.fixture
def a_ct(shown: Shown) -> Any:
    voxels = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    return shown.choose(add_volume(shown.host.scene, voxels, "CT"), "slices")


def window(node: Any) -> tuple[float, float]:
    display = node.GetDisplayNode()
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()


def test_it_is_there_for_a_ct_only(shown: Shown, a_ct: Any) -> None:
    assert not shown.ui.windowComboBox.isHidden() and not shown.ui.windowComboBoxTitle.isHidden()
    shown.choose(add_volume(shown.host.scene, noise(), "MR"))
    assert shown.ui.windowComboBox.isHidden() and shown.ui.windowComboBoxTitle.isHidden()


def test_a_chosen_window_is_applied_and_one_that_is_dragged_is_none_of_them(shown: Shown, a_ct: Any) -> None:
    combo = shown.ui.windowComboBox
    titles = [combo.itemText(row) for row in range(combo.count)]
    assert titles[0] == "as it is" and "Bone (1800 / 400 HU)" in titles
    assert combo.currentText == "Abdomen (400 / 50 HU)"  # a CT model was suggested and chosen
    combo.setCurrentIndex(titles.index("Bone (1800 / 400 HU)"))
    combo.activated.emit(combo.currentIndex)
    assert window(a_ct) == (-500, 1300)
    a_ct.GetDisplayNode().SetWindowLevelMinMax(-40, 80)
    assert combo.currentIndex == 0
    combo.activated.emit(0)
    assert window(a_ct) == (-40, 80)


def test_a_ct_model_shows_the_ct_as_its_organ_is_looked_at_and_the_panel_says_so(shown: Shown, a_ct: Any) -> None:
    a_ct.GetDisplayNode().SetAutoWindowLevel(True)
    assert shown.ui.windowComboBox.currentIndex == 0
    shown.workflow.state.model = "liver-ct"
    assert window(a_ct) == (-150, 250) and shown.ui.windowComboBox.currentText.startswith("Abdomen")
