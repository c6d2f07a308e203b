"""Fine-tune: a few choices become a request, events become curves, and the user adopts, keeps or rolls back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import APFormerError
from apformer.jobs import JobError
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.messages import Fields
from APFormerSlicerLib.workflow import Choices, Training, Workflow
from workflow_samples import PlayedWorker, add_version

ASKED = Choices(name="slices", base="slices", labels=("anterior",), mapping={"anterior": "posterior"}, keep=0.3)


@pytest.fixture
def a_site(a_workflow: Workflow, tmp_path: Path) -> Path:
    return a_workflow.collecting.create(tmp_path / "site 脳", a_workflow.models.find("slices")).root


def report(version: str, adopted: bool = True) -> dict[str, Any]:
    """A result as the worker tells it."""
    before = {"anterior": {"mean_dice": 0.8, "hd95_mm": 4.0}, "posterior": {"mean_dice": None}}
    after = {"anterior": {"mean_dice": 0.9, "hd95_mm": 3.0}, "lesion": {"mean_dice": 0.5, "hd95_mm": None}}
    return {
        "name": "slices", "version": version, "adopted": adopted, "verdict": "Adopted.", "warnings": ["few cases"],
        "before": {"model": "slices 1.0.0", "labels": before, "ms_per_case": 100.0, "gmac": 2.0},
        "after": {"model": f"slices {version}", "labels": after, "ms_per_case": 60.0, "gmac": 1.0},
        "report": "/site/report.json", "page": "/site/report.html",
    }  # fmt: skip


def epoch(number: int, **more: Any) -> dict[str, Any]:
    return {"event": "epoch", "epoch": number, "step": 100 * number, "phase": "adapt", "fold": 1, "folds": 1,
            "losses": {"total": 1.0 / number}, "dice": None, "kept": None, "overlays": [], **more}  # fmt: skip


def started(workflow: Workflow) -> Training:
    return workflow.tuning.start(replace(ASKED, labels=(), mapping={}))


# ------------------------------------------------------------------ the request


def test_choices_become_a_request_that_the_worker_understands(
    a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path
) -> None:
    a_workflow.tuning.start(ASKED)
    fields = Fields("finetune", a_worker.last.fields)
    parsed = HANDLERS["finetune"].parse(fields)
    fields.close()
    assert parsed == {
        "dataset": a_site, "name": "slices", "base": "slices", "labels": ("anterior",),
        "mapping": {"anterior": "posterior"}, "replace": False, "budget": "keep=0.3", "seconds": 900.0,
        "device": "auto", "rehearsal": True, "adopt": "better", "resume": False,
    }  # fmt: skip


def test_choices_are_remembered_in_the_scene(a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path) -> None:
    a_workflow.tuning.start(ASKED)
    assert a_workflow.tuning.choices == ASKED
    for nonsense in ({"minutes": "long"}, {"name": "../x"}, {"labels": 3}, {"keep": 7.0}):
        a_workflow.state.tuning = {**ASKED.as_data(), **nonsense}
        assert a_workflow.tuning.choices == Choices()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../evil"}, "cannot be the name of a model"),
        ({"name": ""}, "cannot be the name of a model"),
        ({"minutes": 0.1}, "at least 20 seconds"),
        ({"minutes": float("nan")}, "at least 20 seconds"),
        ({"keep": 0.0}, "above 0"),
        ({"base": "none-such"}, "is not installed any more"),
        ({"base": ""}, "there is no base"),
        ({"labels": ("lesion",)}, "has no label 'lesion'"),
        ({"adopt": "maybe"}, "better, always or never"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_with_the_remedy(
    a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path, change: dict[str, Any], says: str
) -> None:
    assert a_workflow.tuning.check(ASKED) == (True, "")
    ok, reason = a_workflow.tuning.check(replace(ASKED, **change))
    assert not ok and says in reason
    with pytest.raises(APFormerError):
        a_workflow.tuning.start(replace(ASKED, **change))
    assert a_worker.asked == []


def test_without_a_data_set_there_is_nothing_to_learn_from(a_workflow: Workflow) -> None:
    assert "Choose the folder" in a_workflow.tuning.check(ASKED)[1]


def test_an_estimate_is_asked_of_the_worker(a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path) -> None:
    run = a_workflow.tuning.estimate(ASKED)
    assert a_worker.last.job == "preflight" and a_worker.last.fields["for"] == "finetune"
    HANDLERS["preflight"].parse(Fields("preflight", a_worker.last.fields))
    a_worker.last.tell("result", ok=False, reason={"what": "Too few.", "meaning": "", "remedy": "Add."}, problems=[1])
    assert run.outcome.line == "Too few. Add." and run.outcome.data["problems"] == [1]


def test_one_training_at_a_time(a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path) -> None:
    started(a_workflow)
    with pytest.raises(APFormerError, match="is being trained already"):
        started(a_workflow)
    a_worker.last.tell("cancelled")
    started(a_workflow)


# ------------------------------------------------------------------ while it runs


def test_events_become_curves_figures_and_pictures(a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path) -> None:
    training = started(a_workflow)
    told: list[int] = []
    training.changed.connect(lambda training: told.append(len(training.rows)))
    asked = a_worker.last
    asked.progress(0.1, "measuring the base", eta_s=800.0)
    asked.tell("metrics", event="measured", which="before", labels={"anterior": {"mean_dice": 0.8, "hd95_px": 2.0}})
    asked.tell("log", message="two cases were left out")
    asked.tell("metrics", **epoch(1))
    asked.tell("metrics", **epoch(2, dice={"anterior": 0.7}, kept=0.4, overlays=["/a.png"], phase="tighten"))
    asked.tell("metrics", **epoch(3, losses={"total": None}))
    assert training.step == "adapt, step 300"
    assert training.curves() == {
        "loss: total": [(1, 1.0), (2, 0.5)], "Dice of anterior": [(2, 0.7)], "looked at closely": [(2, 0.4)],
    }  # fmt: skip
    assert training.measured == {"before": {"anterior": (0.8, 2.0, "px")}}
    assert training.overlays == [Path("/a.png")] and training.run.lines == ["two cases were left out"]
    assert (training.run.eta_s, told[-1]) == (800.0, 3)


def test_closing_the_scene_mid_training_leaves_the_training_alone(
    a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path
) -> None:
    training = started(a_workflow)
    a_workflow.scene.Clear(False)
    a_worker.last.tell("metrics", **epoch(1))
    a_worker.last.tell("result", **report("1.1.0"))
    assert training.run.status == "done" and training.trained.reference == "slices@1.1.0"
    assert a_workflow.collecting.dataset.root == a_site
    assert a_workflow.tuning.choices.name == "slices"


def test_a_cancelled_training_can_be_continued(a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path) -> None:
    training = started(a_workflow)
    assert "no unfinished training" in a_workflow.tuning.can_resume("slices")[1]
    (a_site / "trainings" / "slices").mkdir(parents=True)
    (a_site / "trainings" / "slices" / "plan.json").write_text("{}")
    a_workflow.tuning.cancel()
    a_worker.last.tell("cancelled")
    assert training.run.status == "cancelled" and training.trained is None
    assert a_workflow.tuning.can_resume("slices") == (True, "")
    a_workflow.tuning.start(a_workflow.tuning.choices, resume=True)
    assert a_worker.last.fields["resume"] is True


def test_where_the_plan_lies_is_what_the_engine_says() -> None:
    from apformer.finetuning.folder import PLAN, TRAININGS
    from APFormerSlicerLib.workflow import tuning

    assert (tuning._TRAININGS, tuning._PLAN) == (TRAININGS, PLAN)


def test_a_worker_that_dies_mid_training_gives_the_reason(
    a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path
) -> None:
    training = started(a_workflow)
    a_worker.last.tell("metrics", **epoch(1))
    a_worker.last.fail(JobError("It was ended by SIGKILL.", "Memory ran out.", "Close other programs.", "/log"))
    assert training.run.status == "failed" and training.run.error.log == "/log"
    assert training.curves()["loss: total"] == [(1, 1.0)]


# ------------------------------------------------------------------ the decision


def test_before_and_after_stand_side_by_side(a_workflow: Workflow, a_worker: PlayedWorker, a_site: Path) -> None:
    training = started(a_workflow)
    a_worker.last.tell("result", **report("1.1.0"))
    table = training.trained.comparison
    anterior, lesion, posterior = table.rows
    assert (anterior.gain, anterior.distance_after) == (pytest.approx(0.1), 3.0)
    assert (lesion.dice_before, lesion.dice_after, lesion.gain, posterior.dice_before) == (None, 0.5, None, None)
    assert table.costs["ms per case"] == (100.0, 60.0) and table.costs["looked at closely"] == (None, None)
    assert (table.before, table.after, table.adopted) == ("slices 1.0.0", "slices 1.1.0", True)
    assert training.trained.warnings == ("few cases",)


def test_the_user_adopts_keeps_the_old_one_and_rolls_back(
    a_workflow: Workflow, a_worker: PlayedWorker, a_library: ModelLibrary, a_site: Path
) -> None:
    told: list[str] = []
    a_workflow.versions.changed.connect(told.append)
    training = started(a_workflow)
    version = add_version(a_library, "slices")
    a_worker.last.tell("result", **report(version, adopted=False))
    a_workflow.tuning.keep_old(training.trained)
    assert a_workflow.models.find("slices").version == "1.0.0"
    a_workflow.tuning.adopt(training.trained)
    assert a_workflow.models.find("slices").version == version
    a_workflow.tuning.keep_old(training.trained)
    assert a_workflow.models.find("slices").version == "1.0.0"
    assert a_workflow.models.find(f"slices@{version}").version == version  # it is kept
    assert told == ["slices", "slices", "slices"]


def test_versions_are_listed_adopted_and_rolled_back(a_workflow: Workflow, a_library: ModelLibrary) -> None:
    versions = a_workflow.versions
    assert "no earlier slices" in versions.can_roll_back("slices")[1]
    second = add_version(a_library, "slices")
    rows = versions.rows("slices")
    assert [(row.card.version, row.card.origin, row.active) for row in rows] == [
        ("1.0.0", "bundled", True), (second, "trained", False),
    ]  # fmt: skip
    assert rows[1].date is not None and versions.rows("none-such") == [] and versions.rows("../x") == []
    versions.adopt(rows[1].card.reference)
    assert [row.active for row in versions.rows("slices")] == [False, True]
    assert versions.can_roll_back("slices") == (True, "")
    versions.roll_back("slices")
    assert [row.active for row in versions.rows("slices")] == [True, False]
    versions.remove(rows[1].card.reference)
    assert len(versions.rows("slices")) == 1
    with pytest.raises(APFormerError, match="names no version"):
        versions.adopt("slices")
    with pytest.raises(APFormerError):
        versions.adopt("slices@9.9.9")


def test_a_model_goes_out_and_comes_in_as_a_zip_file(
    a_workflow: Workflow, a_library: ModelLibrary, tmp_path: Path
) -> None:
    path = a_workflow.versions.export("slices", tmp_path / "Modell 脳.zip")
    with pytest.raises(APFormerError, match="is installed already"):
        a_workflow.versions.import_zip(path)
    assert a_workflow.versions.import_zip(path, replace=True).name == "slices"
    assert [row.card.origin for row in a_workflow.versions.rows("slices") if row.active] == ["imported"]
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(APFormerError):
        a_workflow.versions.import_zip(tmp_path / "bad.zip")
