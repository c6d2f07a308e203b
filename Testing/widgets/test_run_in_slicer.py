"""The script that makes the journey in a real Slicer, every step of it in the stand-in on a real CT."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from panel_samples import ROOT, save_small_model

if TYPE_CHECKING:
    from stand_in import Host

SCRIPT = ROOT / "Testing" / "run_in_slicer.py"
DATA = Path(os.environ.get("APFORMER_DATA") or ROOT.parent / "shared" / "data")
TORSO = DATA / "torso-ct" / "torso_ct.nii.gz"
SMALL = "small-liver"  # learns in seconds, which the bundled model does not without a GPU
MINUTES = 0.5  # a slow computer says that it needs more, and gets it

pytestmark = pytest.mark.long


@pytest.fixture
def a_slicer(tmp_path: Path) -> Iterator[Host]:
    """As `Slicer --testing`: no window waits for anybody."""
    import stand_in

    (tmp_path / "settings").mkdir()
    with stand_in.start(tmp_path / "settings", testing=True) as host:
        yield host
        host.settle()
        host.raise_slot_errors()


@pytest.fixture
def a_script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module; its environment and threads are put back after the test."""
    monkeypatch.setenv("APFORMER_MODELS", "set by the script")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location("run_in_slicer", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not TORSO.is_file(), reason=f"no CT in {TORSO}")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_every_step_of_the_script_is_well(
    a_slicer: Host, a_script: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from apformer.bundles import ModelLibrary, bundled_models

    save_small_model(SMALL, "liver-ct", ModelLibrary([tmp_path / "models", *bundled_models()]))
    a_slicer.load()
    words = ["--volume", str(TORSO), "--minutes", str(MINUTES), "--base", SMALL, "--models", str(tmp_path / "models")]
    assert a_script.main(words) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert [step.__name__.replace("_", " ") in told for step in a_script.STEPS] == [True] * len(a_script.STEPS)
    assert "All steps are well." in told and a_slicer.shown == []


def test_a_step_that_fails_is_told_in_the_exit_status(
    a_slicer: Host, a_script: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a_slicer.load()
    assert a_script.main(["--volume", str(tmp_path / "none.nii.gz")]) == 1
    assert "Failed to load node" in capsys.readouterr().err
    assert any("none.nii.gz does not exist" in line for line in a_slicer.log)
    a_slicer.log.clear()
