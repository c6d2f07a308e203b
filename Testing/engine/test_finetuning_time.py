"""The time that was given is kept, also where the cases that judge are far larger than those that teach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apformer.bundles import ModelLibrary
from apformer.datasets import SiteDataset
from apformer.datasets.table import make_table

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import finetune, outcome, rounds, session, timing
from apformer.inference import Segmenter
from apformer.training import loop
from apformer.training.validation import Validation
from crash_samples import TINY
from finetune_samples import SALT, SIDE, a_ball, a_base, a_request

LARGE = 36  # voxels along each edge: eleven times as many voxels as with `SIDE`
STEP, WINDOW, CASE = 30.0, 5.0, 5.0  # seconds: a patch that is looked at takes a sixth of a step
ENGINE = Path(__file__).resolve().parents[2] / "APFormerSlicer"


@pytest.fixture(autouse=True)
def pictures_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they show is found out all the same: it takes its time."""

    def draw(*given: Any) -> None:
        next(each for each in given if isinstance(each, Path)).write_bytes(b"\x89PNG\r\n\x1a\n")

    for room, name in ((rounds, "draw_overlay"), (outcome, "draw_case")):
        monkeypatch.setattr(room, name, draw)
    monkeypatch.setattr(outcome, "write_page", lambda report, folder, path: path.write_text("page", encoding="utf-8"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Goes on with the work and with nothing else; larger cases take longer, in the measure of their voxels."""
    clock = SimpleNamespace(now=0.0)

    def slow(function: Callable[..., Any], seconds: Callable[..., float]) -> Callable[..., Any]:
        def work(*given: Any, **named: Any) -> Any:
            clock.now += seconds(*given)
            return function(*given, **named)

        return work

    monkeypatch.setattr(session, "WorkClock", lambda: lambda: clock.now)
    monkeypatch.setattr(session, "FIRST_CASES", None)  # how many are there when a pass begins is left to chance
    monkeypatch.setattr(timing.StepTimer, "_time", lambda self, stage, half: STEP)
    monkeypatch.setattr(loop.Trainer, "train_step", slow(loop.Trainer.train_step, lambda *_: STEP))
    monkeypatch.setattr(Validation, "_cut", slow(Validation._cut, lambda *_: WINDOW))
    cost = slow(Segmenter.segment, lambda _self, volume: CASE * volume.array.size / SIDE**3)
    monkeypatch.setattr(Segmenter, "segment", cost)
    return clock


def uneven_site(folder: Path, large: frozenset[str] = frozenset(), patients: int = 8) -> SiteDataset:
    """Patients with a case each; those of `large` patients have eleven times the voxels."""
    dataset = SiteDataset.create(folder, make_table(["Ball,Hole"]), salt=SALT)
    for seed in range(patients):
        patient = f"patient {seed}"
        image, truth = a_ball(seed, side=LARGE if patient in large else SIDE)
        dataset.add(image, truth, patient=patient)
    return dataset


def patients_who_validate(dataset: SiteDataset) -> frozenset[str]:
    judging = {site.name for site in dataset.planned_split().divide(dataset.cases())[1]}
    return frozenset(f"patient {seed}" for seed, case in enumerate(dataset.cases()) if case.name in judging)


@pytest.mark.parametrize("base", ["ball", None])
def test_the_time_is_kept_where_validation_cases_are_eleven_times_larger(
    tmp_path: Path, clock: SimpleNamespace, base: str | None
) -> None:
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    large = patients_who_validate(uneven_site(tmp_path / "even"))
    site = uneven_site(tmp_path / "uneven", large)
    assert patients_who_validate(site) == large and len(large) == 2
    took = finetune(a_request(site, base=base, steps=None, seconds=3000.0), library=library).summary["time"]
    assert took["used_s"] == pytest.approx(3000, rel=0.05)
    spent = {part["name"]: part["seconds"] for part in took["phases"]}
    assert spent["measure the new model"] == pytest.approx(2 * CASE * (LARGE / SIDE) ** 3, rel=0.01)
    assert spent["training"] > 0.4 * 3000, "what measuring and drawing leave is for learning"


@pytest.mark.parametrize("base", ["ball", None])
def test_where_measuring_all_would_take_the_time_some_are_measured_and_it_is_said(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, base: str | None
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CASE", 60.0)
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    site = uneven_site(tmp_path / "site", patients=40)
    found = finetune(a_request(site, base=base, steps=None, seconds=3600.0), library=library).summary
    assert found["time"]["used_s"] == pytest.approx(3600, rel=0.05)
    judging, measured = found["data"]["validation_cases"], found["data"]["measured_cases"]
    assert len(judging) == 8 and len(measured) in (6, 7), "a tenth of 3600 s is 6 cases of 60 s"
    assert set(measured) < set(judging)
    assert found["before"] is None or sorted(found["before"]["cases"]) == measured == sorted(found["after"]["cases"])
    assert any(f"{len(measured)} of the 8 validation cases were measured" in said for said in found["warnings"])


REFUSED = """
import sys
from pathlib import Path
from apformer.bundles import ModelLibrary
from apformer.errors import ConfigError
from apformer.finetuning import Request, finetune
from apformer.finetuning import session
session.quick_estimate = lambda setup: 600.0  # of a slower machine
try:
    request = Request(Path(sys.argv[1]), "mine", "ball", seconds=20.0, device="cpu")
    finetune(request, library=ModelLibrary([Path(sys.argv[2])]))
except ConfigError as error:
    print(error.what, "|", error.remedy)
print(sorted({"monai", "scipy", "matplotlib"} & set(sys.modules)))
"""


def test_a_time_that_is_too_short_is_refused_before_what_takes_long_is_loaded(tmp_path: Path) -> None:
    """On one core of a server, the whole command says no after 2.5 s instead of 4.5."""
    a_base(ModelLibrary([tmp_path / "models"]), **TINY)
    site = uneven_site(tmp_path / "site")
    ran = subprocess.run(
        [sys.executable, "-c", REFUSED, str(site.root), str(tmp_path / "models")],
        capture_output=True,
        encoding="utf-8",
        check=True,
        cwd=ENGINE,
    )
    said, loaded = ran.stdout.splitlines()
    assert "A time of 20 s was given" in said and "Give at least" in said
    assert loaded == "[]"
