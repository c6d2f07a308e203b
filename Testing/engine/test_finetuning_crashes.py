"""A fine-tuning survives cancelling, kills, full disks, damaged files and wrong clocks, and ends as if without them."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apformer import files
from apformer.bundles import ModelLibrary
from apformer.datasets import SiteDataset, split
from apformer.datasets.identity import patient_share
from apformer.errors import ConfigError, OutputError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import Outcome, finetune, session, timing
from apformer.finetuning.blend import SHARES
from apformer.finetuning.folder import TRAININGS
from apformer.finetuning.recipe import FINAL_RATE
from apformer.inference import Segmenter
from apformer.training import loop
from apformer.training.checkpoint import CHECKPOINT, load_checkpoint
from apformer.training.validation import Validation
from crash_samples import TINY, Stopped, Stopper, assert_same_weights, plain_pictures, plan_of, train_on
from dataset_samples import assert_sound
from finetune_samples import a_ball, a_base, a_request, a_site
from version_samples import copier

pytestmark = pytest.mark.long

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ENGINE = Path(__file__).resolve().parents[2] / "APFormerSlicer"
KILLS = int(os.environ.get("APFORMER_KILLS", "30"))

VARIANTS: dict[str, dict[str, Any]] = {
    "a single split": {"steps": 9},
    "cross-validation": {"steps": 6},
    "a budget": {"steps": 12, "budget": "keep=0.5"},
}
# Where each is stopped, one after the other: (what was told, number of the check after it); see `Stopper`.
MOMENTS = {
    "a single split": [
        ("checking the data set", 3),  # while files are read
        ("measuring ball", 1),
        ("measuring ball 1.0.0: case 2", 1),  # all are measured, and nothing is noted yet
        ("preparing", 2),
        ("preparing", 10),  # in the first stretch
        ("1: epoch", 2),
        ("step 6", 5),  # while the last stretch is validated
        ("measuring the new model", 1),
        ("drawing", 1),
    ],
    "cross-validation": [
        ("1: epoch", 1),
        ("measuring the new model: case 1", 1),  # between two trainings, or just before
        ("2: epoch", 1),
        ("3: measuring the new model", 1),
        ("4: epoch", 2),
        ("drawing", 1),
    ],
    "a budget": [("step 3", 2), ("step 9", 1), ("measuring the new model", 1), ("drawing", 1)],
}


@pytest.fixture(autouse=True)
def pictures_are_not_drawn() -> Iterator[None]:
    with plain_pictures():
        yield


@dataclass(frozen=True)
class Trained:
    """A data set, the library, and an uninterrupted training of it, called "whole"."""

    site: SiteDataset
    library: ModelLibrary
    settings: dict[str, Any]
    whole: Outcome

    def train(self, name: str, stopper: Stopper | None = None, **more: Any) -> Outcome:
        stopper = stopper or Stopper()
        request = a_request(self.site, name=name, **{**self.settings, **more})
        return finetune(request, library=self.library, on_event=stopper, check=stopper.check)

    def stop(self, name: str, stopper: Stopper, **more: Any) -> None:
        with pytest.raises(Stopped):
            self.train(name, stopper, **more)

    def folder(self, name: str) -> Path:
        return self.site.root / TRAININGS / name


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Trained]:
    return request.param, a_trained(tmp_path_factory.mktemp("variant"), request.param)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return a_trained(tmp_path_factory.mktemp("trained"), "a single split")


def a_trained(folder: Path, name: str) -> Trained:
    library = ModelLibrary([folder / "models"])
    a_base(library, **TINY)
    site = a_site(folder / "site", patients=4 if name == "cross-validation" else 8)
    settings = VARIANTS[name]
    with plain_pictures():
        return Trained(site, library, settings, finetune(a_request(site, name="whole", **settings), library=library))


# ------------------------------------------------------------------------------------------------ stopped


def test_a_training_stopped_at_any_moment_and_resumed_ends_with_the_very_same_weights(
    variant: tuple[str, Trained],
) -> None:
    which, trained = variant
    for moment, calls in MOMENTS[which]:
        stopper = Stopper(moment, calls)
        trained.stop("stopped", stopper, resume=plan_of(trained.site, "stopped").exists())
        assert not (trained.library.user_root / ".versions" / "stopped").exists(), "no version before the end"
    outcome = trained.train("stopped", resume=True)
    assert_same_weights(outcome.bundle, trained.whole.bundle)
    assert outcome.summary["after"]["labels"] == trained.whole.summary["after"]["labels"]
    report, whole = (json.loads(each.report.read_text()) for each in (outcome, trained.whole))
    times = {"seconds", "train_seconds", "settle_seconds"}
    curves, expected = (
        [{k: v for k, v in row.items() if k not in times} for row in r["curves"]] for r in (report, whole)
    )
    assert curves == expected
    assert [part["name"] for part in report["time"]["phases"]] == [part["name"] for part in whole["time"]["phases"]]


def test_a_training_goes_on_with_the_base_and_the_cases_it_began_with(tmp_path: Path) -> None:
    trained = a_trained(tmp_path, "a single split")
    trained.stop("mine", Stopper("1: epoch"))
    base = trained.library.find("ball")
    trained.library.add_version(copier(base.directory, "ball", "1.1.0"))
    trained.library.activate("ball", "1.1.0")
    image, truth = a_ball(8)
    trained.site.add_label("Third", 3)
    trained.site.add(image, truth.with_array(3 * (truth.array > 0).astype("uint8")), patient="came later")
    outcome = trained.train("mine", resume=True)
    assert outcome.summary["base"] == {"name": "ball", "version": "1.0.0", "other_structures": False}
    data = outcome.summary["data"]
    assert len(data["training_cases"] + data["validation_cases"]) == 8
    assert_same_weights(outcome.bundle, trained.whole.bundle)


def corrects(site: SiteDataset) -> None:
    case = site.cases()[0]
    _, truth = a_ball(1)
    site.correct(case.name, case_grid(case).with_array(truth.array))


def case_grid(case: Any) -> Any:
    return files.read_volume(case.image_path)


def redraws(site: SiteDataset) -> None:
    """Draw a new split by lots turned round, so that those who were last now validate, whatever the data set's salt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "patient_share", lambda patient, salt: 1 - patient_share(patient, salt))
        site.freeze_split(redraw=True)


@pytest.mark.parametrize(
    ("change", "settings", "what"),
    [
        (corrects, {}, "case-0001 was removed, reopened or corrected"),
        (lambda site: site.remove("case-0002"), {}, "case-0002 was removed"),
        (lambda site: site.rename_label("Hole", "Cavity"), {}, "labels"),
        (redraws, {}, "divided anew"),
        (None, {"seed": 6}, "seed = 5000"),
        (None, {"budget": "keep=0.5"}, "budget = None"),
        (None, {"steps": 12}, "steps = 9"),
        (None, {"base": None}, "ball 1.0.0"),
        (None, {"labels": ("Ball",)}, "labels"),
    ],
)
def test_a_training_is_not_continued_with_anything_else_than_it_began_with(
    tmp_path: Path, stopped: Trained, change: Callable[[SiteDataset], Any] | None, settings: dict[str, Any], what: str
) -> None:
    shutil.copytree(stopped.site.root, tmp_path / "site")
    site = SiteDataset.open(tmp_path / "site")
    if change:
        change(site)
    plan = plan_of(site, "stopped").read_bytes()
    with pytest.raises(ConfigError, match=what) as caught:
        replace(stopped, site=site).train("stopped", resume=True, **settings)
    assert str(plan_of(site, "stopped").parent) in caught.value.remedy
    assert plan_of(site, "stopped").read_bytes() == plan, "it can still be continued as it was"


# ------------------------------------------------------------------------------------------------ killed


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one that has loaded torch")
@pytest.mark.parametrize(("patients", "share"), [(8, 0.6), (4, 0.4)])
def test_kills_at_random_moments_lose_no_case_and_no_version(tmp_path: Path, patients: int, share: float) -> None:
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    site = a_site(tmp_path / "site", patients)
    whole = finetune(a_request(site, name="whole"), library=library).bundle
    killing = [sys.executable, Path(__file__).with_name("crash_samples.py"), site.root, tmp_path / "models", "killed"]
    ran = subprocess.run(
        [*map(str, killing), str(round(KILLS * share))],
        env={**os.environ, "PYTHONPATH": str(ENGINE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert ran.returncode == 0, ran.stderr
    train_on(site, library, "killed", lambda event: None)  # nothing that was killed is in the way
    versions = [entry for entry in library.history("killed") if entry.bundle is not None]
    assert {entry.version for entry in versions} >= set(json.loads(ran.stdout))
    for entry in library.history("killed"):
        assert entry.bundle is not None, entry.problem
        assert_same_weights(entry.bundle, whole)
    left = [path for path in (site.root / TRAININGS).rglob("*") if path.name.startswith(".")]
    assert left == [], "nothing half written is left"
    assert not plan_of(site, "killed").parent.exists()
    assert_sound(site)


# ------------------------------------------------------------------------------------------------ full disks


@contextmanager
def full_disk(kind: str, checkpoint: Path) -> Iterator[None]:
    """No checkpoint can be written whole: the disk takes half of one, or says that it is full when all was written."""
    if kind == "half":
        half, limits = checkpoint.stat().st_size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, limits[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        yield


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", ["half", "fsync"])
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before(trained: Trained, kind: str) -> None:
    if kind == "half" and resource is None:
        pytest.skip("this system cannot limit the size of files")
    name, full = f"full-{kind}", ExitStack()
    checkpoint = trained.folder(name) / "training" / CHECKPOINT

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 1:
            full.enter_context(full_disk(kind, checkpoint))

    with full, pytest.raises(OutputError, match=CHECKPOINT if kind == "fsync" else "checkpoint") as caught:
        finetune(a_request(trained.site, name=name, **trained.settings), library=trained.library, on_event=listen)
    assert "space" in caught.value.remedy or "room" in caught.value.remedy
    assert load_checkpoint(checkpoint.parent)["epoch"] == 1
    assert sorted(path.name for path in checkpoint.parent.iterdir() if path.name.startswith(".")) == []
    assert trained.library.inactive().count(name) == 0
    assert_same_weights(trained.train(name, resume=True).bundle, trained.whole.bundle)


def test_a_disk_that_is_full_when_the_version_is_written_costs_nothing_but_the_writing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "full-at-the-end"

    def listen(event: dict[str, Any]) -> None:
        if event.get("message") == "writing the new version":
            monkeypatch.setattr(os, "fsync", no_space)

    with pytest.raises(OutputError, match="No space left"):
        finetune(a_request(trained.site, name=name, **trained.settings), library=trained.library, on_event=listen)
    monkeypatch.undo()
    assert not (trained.library.user_root / ".versions" / name / "1.0.0").exists()
    stopper = Stopper()
    assert_same_weights(trained.train(name, stopper, resume=True).bundle, trained.whole.bundle)
    assert [event for event in stopper.told if event["event"] == "epoch"] == [], "nothing is trained again"


# ------------------------------------------------------------------------------------------------ damaged files


@pytest.fixture(scope="module")
def stopped(trained: Trained) -> Trained:
    """The same with a second training, "stopped", that was stopped after its first epoch; it is only copied."""
    with plain_pictures():
        trained.stop("stopped", Stopper("1: epoch"))
    return trained


def copied(stopped: Trained, folder: Path) -> Trained:
    shutil.copytree(stopped.site.root, folder / "site")
    return replace(stopped, site=SiteDataset.open(folder / "site"))


def flipped(content: bytes) -> bytes:
    """One bit of a weight is another one."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "one bit": flipped,
    "something else": lambda content: b"not a checkpoint",
}


def test_a_damaged_checkpoint_is_named_and_once_deleted_only_its_training_begins_again(
    tmp_path: Path, stopped: Trained
) -> None:
    here = copied(stopped, tmp_path)
    checkpoint = here.folder("stopped") / "training" / CHECKPOINT
    whole, plan = checkpoint.read_bytes(), plan_of(here.site, "stopped").read_bytes()
    for damage in DAMAGES.values():
        checkpoint.write_bytes(damage(whole))
        with pytest.raises(OutputError, match="cannot be read") as caught:
            here.train("stopped", resume=True)
        assert str(checkpoint) in caught.value.what and "delete it" in caught.value.remedy
    assert plan_of(here.site, "stopped").read_bytes() == plan
    checkpoint.unlink()
    assert_same_weights(here.train("stopped", resume=True).bundle, stopped.whole.bundle)


def test_a_damaged_plan_is_named_and_the_training_can_be_given_up(tmp_path: Path, stopped: Trained) -> None:
    here = copied(stopped, tmp_path)
    plan = plan_of(here.site, "stopped")
    whole = json.loads(plan.read_text())
    for damaged in ("", plan.read_text()[:200], "[]", json.dumps({**whole, "schema": 9}), json.dumps({"schema": 1})):
        plan.write_text(damaged)
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            here.train("stopped", resume=True)
        assert str(plan) in caught.value.what and f"delete {plan.parent}" in caught.value.remedy
        with pytest.raises(ConfigError, match="not finished"):
            here.train("stopped")
    shutil.rmtree(plan.parent)
    here.stop("stopped", Stopper("1: epoch"))
    assert plan.exists()


def test_a_training_whose_plan_was_deleted_is_set_aside_not_overwritten(tmp_path: Path, stopped: Trained) -> None:
    here = copied(stopped, tmp_path)
    plan_of(here.site, "stopped").unlink()
    here.stop("stopped", Stopper("1: preparing"))
    assert (here.folder("stopped-unfinished") / "training" / CHECKPOINT).exists()
    assert not (here.folder("stopped") / "training" / CHECKPOINT).exists()


def test_what_a_kill_left_after_the_end_is_tidied_by_the_next_training(tmp_path: Path, stopped: Trained) -> None:
    here = copied(stopped, tmp_path)
    plan_of(here.site, "stopped").unlink()
    (here.folder("stopped") / "report.json").write_text('{"version": "7.0.0"}')
    here.stop("stopped", Stopper("1: preparing"))
    kept = {path.name for path in here.folder("stopped-7.0.0").rglob("*") if path.is_file()}
    assert kept == {"report.json", "log.jsonl", "epoch-001-1.png", "epoch-001-2.png"}


# ------------------------------------------------------------------------------------------------ time


STEP, VALIDATION, CASE = 60.0, 20.0, 5.0  # seconds, by a clock that goes on with the work and with nothing else


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0, slower_from=float("inf"))

    def slow(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def work(*given: Any, **named: Any) -> Any:
            clock.now += seconds * (3.0 if clock.now > clock.slower_from else 1.0)
            return function(*given, **named)

        return work

    monkeypatch.setattr(session, "WorkClock", lambda: lambda: clock.now)
    monkeypatch.setattr(session, "FIRST_CASES", None)  # how many are there when a pass begins is left to chance
    monkeypatch.setattr(Validation, "__call__", slow(Validation.__call__, VALIDATION))
    monkeypatch.setattr(loop.Trainer, "train_step", slow(loop.Trainer.train_step, STEP))
    monkeypatch.setattr(timing.StepTimer, "_time", lambda self, stage, half: STEP)
    monkeypatch.setattr(Segmenter, "segment", slow(Segmenter.segment, CASE))
    return clock


def test_the_seconds_of_all_processes_are_counted_once(trained: Trained, clock: SimpleNamespace) -> None:
    whole = trained.train("timed-whole").summary["time"]
    names = ("measure the base", "training", "measure the new model")
    seconds = (2 * CASE, 3 * (STEP * 3 + VALIDATION) + (1 + len(SHARES)) * VALIDATION, 2 * CASE)
    assert [(part["name"], part["seconds"]) for part in whole["phases"]] == list(zip(names, seconds, strict=True))
    assert whole["used_s"] == sum(seconds)
    moments = (("measuring ball 1.0.0: case 1", 1), ("1: epoch", 3), ("step 6", 3), ("measuring the new", 1))
    for number, (moment, calls) in enumerate((*moments, ("drawing", 1))):
        trained.stop("timed", Stopper(moment, calls), resume=number > 0)
    assert trained.train("timed", resume=True).summary["time"] == whole, "what was lost is not counted"


def test_a_training_with_a_time_that_is_resumed_has_the_time_that_was_left(
    trained: Trained, clock: SimpleNamespace
) -> None:
    asked = {"steps": None, "seconds": 3000.0}
    whole = trained.train("given", **asked)
    for number, (moment, calls) in enumerate((("measuring ball", 2), ("1: epoch", 2), ("adapt: step", 5))):
        trained.stop("given-again", Stopper(moment, calls), resume=number > 0, **asked)
    resumed = trained.train("given-again", resume=True, **asked)
    assert whole.summary["time"]["used_s"] == pytest.approx(3000, rel=0.05)
    assert resumed.summary["time"] == whole.summary["time"]
    assert_same_weights(resumed.bundle, whole.bundle)


def test_a_machine_that_becomes_three_times_slower_after_a_third_ends_in_time(
    trained: Trained, clock: SimpleNamespace
) -> None:
    clock.slower_from = clock.now + 2000.0
    outcome = trained.train("slower", steps=None, seconds=6000.0)
    assert outcome.summary["time"]["used_s"] == pytest.approx(6000, rel=0.05)
    rows = json.loads(outcome.report.read_text(encoding="utf-8"))["curves"]
    assert rows[-1]["learning_rate"] == pytest.approx(FINAL_RATE), "annealed all the same"


def test_a_clock_that_jumps_changes_nothing(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps, now = random.Random(0), time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + jumps.uniform(-1e8, 1e8))
        trained.stop("jumps", Stopper("1: epoch"))
        outcome = trained.train("jumps", resume=True)
    assert_same_weights(outcome.bundle, trained.whole.bundle)
    assert 0 < outcome.summary["time"]["used_s"] < 1e4
    assert all(part["seconds"] >= 0 for part in outcome.summary["time"]["phases"])
