"""What the whole panel promises: tips, keys, words that can be translated, and Slicer's own looks."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from panel_samples import PAGES, ROOT, UI_FILE, Shown, shown_panel

SOURCES = [*sorted((ROOT / "APFormerSlicer" / "APFormerSlicerLib" / "widgets").glob("*.py")),
           ROOT / "APFormerSlicer" / "APFormerSlicer.py"]  # fmt: skip
LIBRARY = ROOT / "APFormerSlicer" / "APFormerSlicerLib"
BELOW = [path for room in ("scene", "workflow") for path in sorted((LIBRARY / room).glob("*.py"))]  # their messages too
OF_THE_TRADE = re.compile(
    r"\b(tokens?|preflight|bundles?|logits?|tensors?|worker|pruning|pruned|checkpoints?|inference|hyperparameters?|ROI)\b"
    r"|\bstep \d",
    re.IGNORECASE,
)
USED = ("QPushButton", "QToolButton", "QCheckBox", "QComboBox", "QLineEdit", "QSlider", "QDoubleSpinBox", "QListWidget",
        "QTableWidget", "qMRMLNodeComboBox")  # fmt: skip


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        panel.unfold("workSection")
        for page in PAGES:
            panel.open(page)
        yield panel


def of_the_panel(shown: Shown) -> dict[str, Any]:
    """Name -> widget, of all that a user can do something with."""
    found = re.findall(r'<widget class="(\w+)" name="(\w+)"', UI_FILE.read_text(encoding="utf-8"))
    return {name: getattr(shown.ui, name) for kind, name in found if kind in USED}


def translated() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of `_`."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                yield path, node


def test_every_widget_has_a_tool_tip(shown: Shown) -> None:
    widgets = of_the_panel(shown)
    assert len(widgets) > 40
    assert [name for name, widget in widgets.items() if not widget.toolTip] == []


def test_every_widget_is_reached_with_the_keyboard(shown: Shown) -> None:
    import qt

    widgets = {name: widget for name, widget in of_the_panel(shown).items() if not hasattr(widget, "nodeTypes")}
    assert [name for name, widget in widgets.items() if widget.focusPolicy == qt.Qt.NoFocus] == []
    selectors = [widget for widget in of_the_panel(shown).values() if hasattr(widget, "nodeTypes")]
    assert len(selectors) == 3  # each holds a combo box, which takes the keys


def test_no_letter_is_the_key_of_two_widgets() -> None:
    keys = re.findall(r"<string>[^<]*&amp;(\w)", UI_FILE.read_text(encoding="utf-8"))
    letters = [key.lower() for key in keys]
    assert len(letters) > 10 and sorted(letters) == sorted(set(letters))


def test_a_disabled_button_says_why_in_place_of_its_tip(shown: Shown) -> None:
    tips = dict(re.findall(
        r'name="(\w+Button)">(?:(?!</widget>).)*?<property name="toolTip">\s*<string>([^<]*)',
        UI_FILE.read_text(encoding="utf-8"), re.DOTALL,
    ))  # fmt: skip
    disabled = {name: widget for name, widget in of_the_panel(shown).items() if name in tips and not widget.enabled}
    assert len(disabled) > 8
    assert [name for name, widget in disabled.items() if widget.toolTip in ("", tips[name])] == []


def test_what_is_translated_is_plain_text_with_named_places() -> None:
    calls = list(translated())
    assert len(calls) > 100
    for path, call in calls:
        text = call.args[0]
        assert isinstance(text, ast.Constant) and isinstance(text.value, str), f"{path.name}:{call.lineno}"
        names = [name for _, name, _, _ in string.Formatter().parse(text.value) if name is not None]
        assert all(name.isidentifier() for name in names), f"{path.name}:{call.lineno}: {text.value}"


def said() -> Iterator[tuple[str, str]]:
    """Every text that the panel shows: where it stands, and what it says."""
    for text in re.findall(r"<string>([^<]*)</string>", UI_FILE.read_text(encoding="utf-8")):
        yield UI_FILE.name, text
    for path, call in translated():
        yield path.name, str(call.args[0].value)
    for path in BELOW:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        explained = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]  # docstrings
        for node in ast.walk(tree):
            said = isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in explained
            if said and " " in node.value:
                yield path.name, node.value


def test_no_word_of_the_trade_is_shown() -> None:
    """What a clinician has not learned is said otherwise; but a paper keeps its title."""
    texts = [(where, text) for where, text in said() if "doi.org" not in text]
    assert len(texts) > 300
    assert [(where, text) for where, text in texts if OF_THE_TRADE.search(text)] == []


def test_slicer_decides_how_things_look() -> None:
    assert "styleSheet" not in UI_FILE.read_text(encoding="utf-8")
    assert [path.name for path in SOURCES if "tyleSheet" in path.read_text(encoding="utf-8")] == []
