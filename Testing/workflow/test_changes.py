"""Models are adopted, rolled back, exported and imported by the worker: the host loads no torch for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apformer.bundles import ModelLibrary
from apformer.jobs import JobError
from APFormerSlicerLib.workflow import Workflow
from workflow_samples import PlayedWorker, add_version

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"

_HOST = """
import json, sys
from pathlib import Path
import slicer
from apformer.bundles import ModelLibrary
from apformer.finetuning import Request
from APFormerSlicerLib.workflow import Choices, HeadlessWorker, Workflow

folder, version, *roots = sys.argv[1:]
folder = Path(folder)
with HeadlessWorker(folder / "logs") as worker:
    workflow = Workflow(slicer.vtkMRMLScene(), worker, ModelLibrary(roots))
    told = []
    workflow.versions.changed.connect(told.append)

    def change(run):
        worker.wait(run, 1000)
        return {"status": run.status, "what": "" if run.error is None else run.error.what,
                "present": bool(run.outcome and run.outcome.present),
                "active": workflow.models.find("slices").version}

    changes, zipped = workflow.changes, folder / "Modell.zip"
    done = [
        change(changes.adopt(f"slices@{version}", "test")),
        change(changes.roll_back("slices", "test")),
        change(changes.export(f"slices@{version}", zipped)),
        change(changes.import_zip(zipped)),
        change(changes.import_zip(zipped, replace=True)),
        change(changes.adopt("slices@9.9.9")),
    ]
    workflow.collecting.create(folder / "site", workflow.models.find("slices"))
    problems = workflow.collecting.problems(read_files=True)
    ready = workflow.tuning.check(Choices(name="slices", base="slices", keep=0.5))
    request = Request(folder, "slices", None)
    workflow.close()
print(json.dumps({"done": done, "told": told, "written": zipped.exists(), "ready": ready,
                  "problems": [problem.what for problem in problems], "torch": "torch" in sys.modules}))
"""


def test_adopt_roll_back_export_and_import_leave_torch_to_the_worker(a_library: ModelLibrary, tmp_path: Path) -> None:
    version = add_version(a_library, "slices")
    done = subprocess.run(
        [sys.executable, "-c", _HOST, str(tmp_path), version, *map(str, a_library.roots)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    adopted, back, exported, asked, imported, unknown = told["done"]
    assert (adopted["active"], back["active"], exported["status"]) == (version, "1.0.0", "done") and told["written"]
    assert (asked["present"], asked["active"]) == (True, "1.0.0")
    assert (imported["present"], imported["active"]) == (False, version)
    assert unknown["status"] == "failed" and "9.9.9" in unknown["what"]
    assert told["told"] == ["slices"] * 3
    assert told["ready"][0] and told["problems"]  # an empty data set
    assert told["torch"] is False


def test_a_worker_that_cannot_be_started_is_told_and_changes_nothing(
    a_workflow: Workflow, a_worker: PlayedWorker
) -> None:
    a_worker.refuse = JobError("No worker.", "Nothing runs.", "Install again.")
    with pytest.raises(JobError, match="No worker"):
        a_workflow.changes.roll_back("slices")


def test_a_change_that_is_under_way_is_cancelled_when_the_program_is_closed(
    a_workflow: Workflow, a_worker: PlayedWorker
) -> None:
    run: Any = a_workflow.changes.adopt("slices@1.0.0")
    a_workflow.changes.stop()
    assert a_worker.cancelled == [a_worker.last.id]
    a_worker.last.tell("cancelled")
    assert run.status == "cancelled" and run.error is None
