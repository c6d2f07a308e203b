"""Versions survive kills at any moment: the library lists, the active one is sound, none that was told is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from apformer.bundles import ModelLibrary
from bundle_samples import save_sample
from version_samples import add_next

ENGINE = Path(__file__).resolve().parents[2] / "APFormerSlicer"
KILLS = int(os.environ.get("APFORMER_KILLS", "30"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the tests copy under other versions."""
    return save_sample(tmp_path_factory.mktemp("source") / "sample").directory


@pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked, so that each starts at once")
def test_kills_at_random_moments_and_at_every_step_lose_no_version_and_leave_the_active_one_sound(
    source: Path, tmp_path: Path
):
    script, root = Path(__file__).with_name("version_samples.py"), tmp_path / "Modèles d'essai 模型"
    told = subprocess.run(
        [sys.executable, str(script), str(root), str(source), str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(ENGINE), "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    versions, steps = (int(line.split()[0]) for line in told.stdout.splitlines())
    assert versions > 0 and steps > 20  # some versions were finished before a kill; writers change that much at least


def test_what_a_killed_writer_left_goes_with_the_next_change(source: Path, tmp_path: Path):
    library = ModelLibrary([tmp_path])
    add_next(library, source)
    versions = tmp_path / ".versions"
    (versions / ".adding.new-abc" / "bundle").mkdir(parents=True)
    (versions / "mine" / ".1.0.5.new-abc").mkdir()
    (versions / "mine" / ".0123456789ab-active.json").write_text("half")
    (tmp_path / ".lock.abc").write_text("a claim")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder = {"pid": ended.pid, "host": socket.gethostname(), "started": "", "since": "", "token": "abc"}
    (tmp_path / ".lock").write_text(json.dumps(holder))
    add_next(library, source)
    assert [path.name for path in tmp_path.rglob(".*")] == [".versions"]
