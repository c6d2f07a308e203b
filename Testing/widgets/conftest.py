"""Slicer's Qt side, stood in for on PySide6. Without PySide6 or slicer-core the folder is skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

TESTING = Path(__file__).resolve().parents[1]
for folder in ("widgets", "workflow", "scene", "engine"):
    sys.path.insert(0, str(TESTING / folder))  # pytest's importlib mode leaves it out

if TYPE_CHECKING:
    from stand_in import Host

_MISSING = [name for name in ("slicer", "PySide6") if find_spec(name) is None]


class _WithoutWindows(pytest.Module):
    """A test file that cannot be imported here."""

    def collect(self) -> list[Any]:
        pytest.skip(f"not installed: {', '.join(_MISSING)}; the test extra brings them", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return _WithoutWindows.from_parent(parent, path=module_path) if _MISSING else None


@pytest.fixture
def a_slicer(tmp_path: Path) -> Iterator[Host]:
    """Slicer with a main window and an empty scene; a test fails when a slot raised."""
    import stand_in

    (tmp_path / "settings").mkdir()
    with stand_in.start(tmp_path / "settings") as host:
        yield host
        host.settle()
        host.raise_slot_errors()
