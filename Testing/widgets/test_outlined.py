"""The page Review without a model: a structure is outlined on some slices, those between follow.

With APFORMER_SCREENSHOTS=FOLDER pictures of every state are written there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from APFormerSlicerLib.scene import new_segmentation
from APFormerSlicerLib.scene.difference import difference_of
from APFormerSlicerLib.scene.geometry import vtk_matrix
from following_samples import GRID
from headless import draw, matrix_of, redraw, segment_mask
from panel_samples import Shown, add_volume, is_seen, shown_panel

ROWS, COLUMNS = np.mgrid[:40, :40]
TRUE = np.stack([(ROWS - 14 - k * 0.5) ** 2 + (COLUMNS - 20) ** 2 < 60 for k in range(13)])
DRAWN = (1, 6, 11)
PICTURES = os.environ.get("APFORMER_SCREENSHOTS")
LOOKS = [(f"{width}x{height}{'-dark' * dark}", (width, height), dark)
         for width, height in ((340, 540), (480, 870)) for dark in (False, True)]  # fmt: skip


class Case:
    """A panel on the page Review with a tumour that was outlined on some slices of an image."""

    def __init__(self, shown: Shown, drawn: tuple[int, ...] = DRAWN) -> None:
        import slicer

        self.shown, self.ui, self.following = shown, shown.ui, shown.workflow.following
        noise = np.random.default_rng(0).normal(0, 8, TRUE.shape)
        self.volume = add_volume(shown.host.scene, (100 + 80 * TRUE + noise).astype(np.float32), "Thigh MR")
        self.volume.SetIJKToRASMatrix(vtk_matrix(GRID))
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        self.node = new_segmentation(self.volume)
        mask = np.zeros(TRUE.shape, np.uint8)
        mask[list(drawn)] = TRUE[list(drawn)]
        self.segment_id = draw(self.node, "Tumour", mask, matrix_of(self.volume))
        shown.workflow.state.volume, shown.workflow.state.segmentation = self.volume, self.node
        shown.open("reviewPage")
        self.settle()

    def settle(self) -> None:
        """Longer than the page waits for the end of a stroke."""
        self.shown.host.settle(0.7)

    @property
    def mask(self) -> np.ndarray:
        return segment_mask(self.node, self.segment_id, TRUE.shape) > 0

    def apply(self) -> None:
        self.ui.followButton.click()
        self.shown.worker.last.fields["outlined"]["seconds"] = 1  # this structure needs no learning
        self.shown.answer()
        self.settle()
        assert self.shown.asks.errors == []

    def picture(self, name: str) -> None:
        if PICTURES is None:
            return
        for folder, size, dark in LOOKS:
            (Path(PICTURES) / folder).mkdir(parents=True, exist_ok=True)
            self.shown.host.darken(dark)
            self.shown.window.resize(*size)
            self.settle()
            self.shown.host.picture(Path(PICTURES) / folder / name, self.shown.window)
        self.shown.host.darken(False)


@pytest.fixture
def a_panel(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as shown:
        yield shown


def kinds(case: Case) -> list[str]:
    """What the strip says of each slice."""
    table = case.ui.sliceStrip
    return [table.item(0, column).toolTip().partition(": ")[2] for column in range(table.columnCount)]


def test_a_tumour_that_no_model_knows_is_outlined_followed_looked_at_and_kept(a_panel: Shown) -> None:
    case, ui = Case(a_panel), a_panel.ui
    assert ui.outlinedLabel.text == "Tumour: outlined on 3 axial slices; the slices between follow."
    assert ui.followButton.enabled and ui.followLabel.text == ""
    assert [number for number, kind in enumerate(kinds(case)) if kind == "drawn on"] == list(DRAWN)
    case.picture("outlined-1.png")
    before = case.mask
    ui.followButton.click()
    a_panel.worker.last.progress(0.4, "learning from the outlined slices")
    case.settle()
    assert ui.segmentButton.text == "Cancel" and "Thigh MR between outlines: learning" in ui.statusLabel.text
    case.picture("outlined-2-learning.png")
    a_panel.worker.last.fields["outlined"]["seconds"] = 1
    a_panel.answer()
    case.settle()
    after = case.mask
    assert np.array_equal(after[list(DRAWN)], before[list(DRAWN)]) and after[[3, 8]].any(axis=(1, 2)).all()
    added = np.count_nonzero(after & ~before) * 0.004
    assert ui.followedLabel.text == f"+{added:.1f} -0.0 mL"
    assert "Followed 3 outlined slices of Tumour on CPU" in ui.statusLabel.text
    assert ui.differenceCheckBox.isVisible() and not ui.todayCheckBox.isVisible()
    assert kinds(case)[1:12] == ["drawn on", *["proposed"] * 4, "drawn on", *["proposed"] * 4, "drawn on"]
    assert not ui.followButton.enabled and "Nothing of Tumour was outlined since" in ui.followButton.toolTip
    case.picture("outlined-3-proposal.png")
    ui.keepFollowedButton.click()
    case.settle()
    assert not ui.followedContents.isVisible() and difference_of(case.node) is None
    assert np.array_equal(case.mask, after)


def test_undo_brings_back_the_outlines_alone(a_panel: Shown) -> None:
    case = Case(a_panel)
    before = case.mask
    case.apply()
    case.ui.undoFollowedButton.click()
    case.settle()
    assert np.array_equal(case.mask, before) and case.ui.followButton.enabled


def test_one_slice_only_is_told_where_the_button_is(a_panel: Shown) -> None:
    case = Case(a_panel, (6,))
    assert not case.ui.followButton.enabled and "on one slice only" in case.ui.followButton.toolTip
    assert "Tumour is outlined on one slice only" in case.ui.outlinedLabel.text
    case.picture("outlined-4-one-slice.png")


def test_no_slice_can_be_marked_where_no_model_proposed_any(a_panel: Shown) -> None:
    case = Case(a_panel)
    assert not case.ui.rightButton.enabled and "No model proposed" in case.ui.rightButton.toolTip


def test_a_second_outline_is_seen_when_the_stroke_ends(a_panel: Shown) -> None:
    case = Case(a_panel, (6,))
    mask = case.mask.astype(np.uint8)
    mask[10] = TRUE[10]
    redraw(case.node, case.segment_id, mask, matrix_of(case.volume))
    case.settle()
    assert case.ui.outlinedLabel.text == "Tumour: outlined on 2 axial slices; the slices between follow."


def test_interpolation_alone_is_said_to_be_that(a_panel: Shown) -> None:
    case = Case(a_panel, (1, 11))
    case.apply()
    assert "interpolated from the outlines alone" in case.ui.statusLabel.text
    case.picture("outlined-5-interpolated.png")


@pytest.mark.parametrize("size", [(340, 540), (480, 870)])
def test_all_of_it_is_seen_on_a_small_screen(a_panel: Shown, size: tuple[int, int]) -> None:
    case, ui = Case(a_panel), a_panel.ui
    case.apply()
    a_panel.window.resize(*size)
    case.settle()
    for widget in (ui.followButton, ui.sliceStrip, ui.followedLabel, ui.differenceCheckBox, ui.keepFollowedButton,
                   ui.undoFollowedButton):  # fmt: skip
        assert is_seen(widget, a_panel.window), widget.objectName
