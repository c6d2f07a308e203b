"""The panel in Slicer's window: it never scrolls as a whole, its width is constant, nothing is cut at 340 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_samples import MODULE_AREA, PAGES, Shown, add_volume, is_seen, noise, shown_panel
from test_tuning_panel import epoch, report
from workflow_samples import a_block, add_version

SHAPE = (5, 40, 40)
NARROW = 340  # pixels
SIZES = ((NARROW, 520), (380, 540), (480, 870))  # of the module's area at 1366 x 768 and 1920 x 1080
NAME = "3: CT_Thorax_Abdomen_Becken_nativ_und_venoes_5.0_B30f_mit_sehr_langem_Namen"
MESSAGE = (
    "The image is larger than what this computer has memory for: /home/radiology/a/very/long/folder/whose/name/has/no/"
    "places/where/it/could/be/broken/study.nrrd. Draw a region, or close other programs."
)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


@pytest.fixture
def full(shown: Shown, tmp_path: Path) -> Shown:
    """Everything has something to show, and all of it is long."""
    ui, workflow = shown.ui, shown.workflow
    shown.choose(add_volume(shown.host.scene, noise(SHAPE), NAME))
    shown.segment(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.5, np.float32)})
    workflow.collecting.create(tmp_path / ("site" + 6 * " of our hospital"), workflow.models.find("slices"))
    ui.commentEdit.setText(MESSAGE)
    shown.open("tuningPage")
    ui.tuneButton.click()
    for number in (1, 2, 3):
        shown.trainer.last.tell("metrics", **epoch(number))
    version = add_version(workflow.library, "slices")
    shown.trainer.last.tell("result", **report(version, adopted=False) | {"verdict": MESSAGE})
    workflow.worklist.add(workflow.volumes())
    for button in (ui.aboutButton, ui.segmentsButton):
        button.setChecked(True)
    shown.unfold("workSection")
    for label in (ui.statusLabel, ui.preflightLabel, ui.placesLabel, ui.siteLabel, ui.siteReportLabel, ui.tuningLabel,
                  ui.tuningStatusLabel, ui.versionsLabel, ui.workLabel, ui.volumesLabel,
                  ui.suggestionLabel):  # fmt: skip
        say(label, MESSAGE)
    return shown


def say(label: Any, text: str) -> None:
    from APFormerSlicerLib.widgets.hints import show_text

    show_text(label, text)


def resize(shown: Shown, size: tuple[int, int]) -> None:
    shown.window.resize(*size)
    shown.host.settle(0.05)


def walk(shown: Shown, size: tuple[int, int]) -> Iterator[str]:
    """Each page in turn, at that size."""
    resize(shown, size)
    for page in PAGES:
        shown.open(page)
        yield page
    for view in (shown.ui.tuningOptions, shown.ui.tuningProgress):
        shown.open("tuningPage")
        shown.ui.tuningViews.setCurrentWidget(view)
        shown.host.settle(0.02)
        yield view.objectName


def of_class(shown: Shown, *names: str) -> list[Any]:
    """The visible widgets of the panel of these classes of Qt, those within Slicer's own widgets left out."""
    root = shown.ui.header.parentWidget()
    found = [widget for name in names for widget in root.findChildren(name)]
    return [widget for widget in found if widget.isVisible() and not _is_slicers(widget)]


def _is_slicers(widget: Any) -> bool:
    while widget is not None:
        if type(widget).__name__ in ("qMRMLNodeComboBox", "qMRMLSegmentEditorWidget", "ctkCollapsibleButton"):
            return not widget.findChild("QWidget", "workContents")
        widget = widget.parentWidget()
    return False


def widths(root: Any) -> tuple[int, int]:
    """What it would like, and what it needs: the module panel asks its layout for both."""
    layout = root.parentWidget().layout()
    return layout.sizeHint().width(), layout.minimumSize().width()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_segmented_and_how_far_it_is_stay_on_the_screen(full: Shown, size: tuple[int, int]) -> None:
    ui = full.ui
    for page in walk(full, size):
        for widget in (ui.volumeSelector, ui.modelComboBox, ui.segmentButton, ui.messageArea):
            assert is_seen(widget, full.window), (page, widget)
        assert full.window.size.height() == size[1], page


@pytest.mark.parametrize("size", SIZES)
def test_slicers_module_area_does_not_scroll(
    a_slicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "models"))
    ui, area = a_slicer.open_module().panel.ui, a_slicer.window.centralWidget()
    a_slicer.window.statusBar().hide()
    a_slicer.window.resize(size[0] + 2 * area.frameWidth, size[1] + 2 * area.frameWidth)
    for page in PAGES:
        ui.pages.setCurrentWidget(getattr(ui, page))
        a_slicer.settle(0.05)
        assert (area.verticalScrollBar().maximum, area.horizontalScrollBar().maximum) == (0, 0), page
        assert ui.pages.height + ui.header.height > size[1] - 40, page  # it takes all of the height


def test_the_width_depends_on_nothing_that_is_shown(shown: Shown, request: pytest.FixtureRequest) -> None:
    root = shown.ui.header.parentWidget()
    assert widths(root) == (380, NARROW)
    request.getfixturevalue("full")
    for page in walk(shown, SIZES[1]):
        assert widths(root) == (380, NARROW), page


@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_the_panel(full: Shown, size: tuple[int, int]) -> None:
    ui = full.ui
    assert ui.header.minimumSizeHint.width() <= NARROW
    for page in walk(full, size):
        for area in of_class(full, "QScrollArea"):
            if area is not ui.editorArea:
                assert area.horizontalScrollBar().maximum == 0, (page, area)
        bar = ui.pages.tabBar()
        assert bar.tabRect(bar.count - 1).right() <= bar.width, page


@pytest.mark.parametrize("size", SIZES)
def test_no_text_is_wider_than_its_widget(full: Shown, size: tuple[int, int]) -> None:
    for page in walk(full, size):
        for widget in of_class(full, "QPushButton", "QCheckBox", "QToolButton"):
            hint = widget.minimumSizeHint() if callable(widget.minimumSizeHint) else widget.minimumSizeHint
            assert widget.width >= hint.width(), (page, widget, widget.text)
        for label in of_class(full, "QLabel"):
            needed = label.minimumSizeHint.width() if label.wordWrap else label.sizeHint.width()
            assert label.width >= needed, (page, label, label.text)


@pytest.mark.parametrize("size", SIZES)
def test_a_message_has_the_lines_that_it_needs(full: Shown, size: tuple[int, int]) -> None:
    for page in walk(full, size):
        for label in of_class(full, "QLabel"):
            if label.wordWrap:
                assert label.height >= label.heightForWidth(label.width), (page, label)


@pytest.mark.parametrize("size", SIZES)
def test_review_shows_the_effects_undo_and_redo_and_every_verdict(shown: Shown, size: tuple[int, int]) -> None:
    ui = shown.ui
    shown.choose(add_volume(shown.host.scene, noise(SHAPE), NAME))
    shown.segment(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.5, np.float32)})
    shown.workflow.worklist.add(shown.workflow.volumes())
    shown.open("reviewPage")
    resize(shown, size)
    shown.host.settle(0.2)
    names = ["UndoButton", "RedoButton", *ui.segmentEditor.effectNameOrder()]
    for button in [ui.segmentEditor.findChild("QToolButton", name) for name in names]:
        assert is_seen(button, shown.window), button
    verdicts = (ui.acceptButton, ui.flagButton, ui.storeNextButton)
    for widget in (ui.nextPlaceButton, *verdicts, ui.show3DButton, ui.uncertaintyCheckBox):
        assert is_seen(widget, shown.window), widget


def test_there_is_one_button_that_shows_3d(shown: Shown) -> None:
    shown.open("reviewPage")
    assert [button.text for button in of_class(shown, "QPushButton") if "3" in button.text] == ["Show &3D"]
    assert shown.ui.segmentEditor.findChild("QPushButton", "Show3DButton").isHidden()


def test_all_effects_would_push_undo_out_of_sight(shown: Shown) -> None:
    """That is why some are left out: the stand-in's editor is as large as Slicer's."""
    editor = shown.ui.segmentEditor
    shown.open("reviewPage")
    resize(shown, (NARROW, 520))
    editor.setUnorderedEffectsVisible(True)
    shown.host.settle(0.05)
    assert not is_seen(editor.findChild("QToolButton", "UndoButton"), shown.window)


def test_curves_are_seen_with_cancel_then_figures_with_the_decision(shown: Shown, tmp_path: Path) -> None:
    ui, workflow = shown.ui, shown.workflow
    resize(shown, MODULE_AREA)
    workflow.state.model = "slices"
    workflow.collecting.create(tmp_path / "site", workflow.models.find("slices"))
    shown.open("tuningPage")
    ui.tuneButton.click()
    shown.trainer.last.progress(0.3, "training, adapt: epoch 3 of 20", eta_s=90.0)
    shown.trainer.last.tell("metrics", **epoch(1))
    shown.host.settle(0.05)
    assert ui.tuningViews.currentWidget() is ui.tuningProgress
    for widget in (ui.curvesLabel, ui.tuningStatusLabel, ui.tuningProgressBar, ui.tuneButton):
        assert is_seen(widget, shown.window), widget
    version = add_version(workflow.library, "slices")
    shown.trainer.last.tell("result", **report(version, adopted=False))
    shown.host.settle(0.05)
    for widget in (ui.comparisonTable, ui.decisionLabel, ui.adoptButton, ui.keepOldButton, ui.tuneButton):
        assert is_seen(widget, shown.window), widget


def test_nothing_moves_when_a_job_begins_and_when_a_message_comes(shown: Shown) -> None:
    ui = shown.ui
    shown.choose(add_volume(shown.host.scene, noise(SHAPE), NAME))
    shown.host.settle(0.05)
    before = ui.pages.geometry
    ui.segmentButton.click()
    shown.worker.last.progress(0.4)
    say(ui.statusLabel, MESSAGE)
    shown.host.settle(0.05)
    assert ui.progressBar.isVisible() and ui.pages.geometry == before


@pytest.mark.parametrize("size", SIZES)
def test_all_of_the_work_list_is_seen_while_it_is_unfolded(shown: Shown, size: tuple[int, int]) -> None:
    ui = shown.ui
    for number in range(12):
        add_volume(shown.host.scene, noise(), f"{number} {NAME}")
    shown.workflow.worklist.add(shown.workflow.volumes())
    shown.open("segmentPage")
    shown.unfold("workSection")
    resize(shown, size)
    shown.host.settle(0.2)
    assert ui.workTable.rowCount == 12 and ui.workTable.horizontalScrollBar().maximum == 0
    for widget in (ui.workTable, ui.workOrderComboBox, ui.workSegmentButton, ui.workStoreButton, ui.folderButton):
        assert is_seen(widget, shown.window), widget


def test_import_and_help_are_found_without_a_volume_or_a_data_set(shown: Shown) -> None:
    resize(shown, (NARROW, 520))
    assert is_seen(shown.ui.helpButton, shown.window)
    shown.open("modelsPage")
    for widget in (shown.ui.importButton, shown.ui.modelsHelpButton, shown.ui.reportButton):
        assert is_seen(widget, shown.window) and widget.enabled, widget


def test_help_opens_a_page_that_comes_with_the_module(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    import qt

    opened: list[str] = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    for button in (shown.ui.helpButton, shown.ui.modelsHelpButton):
        button.click()
    assert len(opened) == 2 and len(set(opened)) == 1
    page = Path(opened[0])
    assert page.is_file() and page.parents[1].name == "Resources" and page.parents[2].name == "APFormerSlicer"
    text = page.read_text(encoding="utf-8")
    assert all(word in text for word in ("Segment", "Accept", "Fine-tune", "Adopt", "logic."))


def test_a_word_longer_than_a_line_may_be_broken_and_reads_as_before(a_slicer: Any) -> None:
    from APFormerSlicerLib.widgets.hints import LONGEST_WORD, PLACE_TO_BREAK, breakable

    assert breakable("Written to a file.") == "Written to a file."
    path = "/" + "x" * 100
    words = breakable(f"Written to {path}.").replace(PLACE_TO_BREAK, " ").split()
    assert max(len(word) for word in words) <= LONGEST_WORD
    assert breakable(path).replace(PLACE_TO_BREAK, "") == path
