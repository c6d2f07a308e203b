"""Before a fine-tuning: what a preflight says of data, memory, disk and time, and what it refuses in plain words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.bundles import ModelLibrary
from apformer.commands.finetune_check import check_request
from apformer.datasets import SiteDataset
from apformer.errors import APFormerError
from apformer.finetuning import Request
from apformer.jobs import Event
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.preflight_finetune import estimate_finetune
from apformer.jobs.training_work import Extent, Work
from apformer.training.cases import PreparedCases
from finetune_samples import a_base, a_request, a_site
from job_samples import run_here

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model `ball` and data sets of eight, four and two patients."""
    home = tmp_path_factory.mktemp("home")
    a_base(ModelLibrary([home / "models"]))
    for name, patients in (("site", 8), ("four", 4), ("two", 2)):
        a_site(home / name, patients=patients)
    return home


@pytest.fixture(autouse=True)
def library(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APFORMER_MODELS", str(home / "models"))


def preflight(site: Path, **fields: Any) -> dict[str, Any]:
    asked = {"for": "finetune", "dataset": str(site), "name": "new", "device": "cpu", **fields}
    return run_here("preflight", **asked)


def test_preflight_says_what_is_trained_on_where_how_long_and_from_which_model(home: Path) -> None:
    result = preflight(home / "site", base="ball", seconds=900)
    assert result["ok"] is True
    assert result["reason"]["what"].startswith("It can run on cpu")
    assert result["reason"]["meaning"] == (
        "It trains Ball, Hole from ball 1.0.0 on 6 cases of 6 patients, judged on 2 cases of 2 patients kept apart. "
        "It takes about 15 min."
    )
    counts = result["counts"]
    assert (counts["training_cases"], counts["training_patients"]) == (6, 6)
    assert (counts["validation_cases"], counts["validation_patients"], counts["folds"]) == (2, 2, 1)
    assert 0 < counts["steps_at_least"] <= counts["steps_at_most"]
    assert result["seconds"][0] == 900
    for place in ("device", "disk"):
        assert 0 < result["needed_bytes"][place] < result["free_bytes"][place]
    assert [(label["name"], label["how"]) for label in result["labels"]] == [("Ball", "kept"), ("Hole", "new")]
    assert result["base"]["name"] == "ball" and "label volume" in {problem["kind"] for problem in result["problems"]}


def test_preflight_writes_nothing(tmp_path: Path) -> None:
    a_site(tmp_path / "site")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "site").rglob("*")}
    assert preflight(tmp_path / "site", base="ball")["ok"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "site").rglob("*")} == before


def test_preflight_tells_of_cross_validation_and_of_a_model_from_scratch(home: Path) -> None:
    result = preflight(home / "four", seconds=600)
    assert "from scratch on 4 cases of 4 patients by 3-fold cross-validation" in result["reason"]["meaning"]
    assert result["counts"]["folds"] == 3 and result["base"] is None
    assert result["counts"]["training_cases"] == result["counts"]["validation_cases"] == 4
    assert result["network"] == {
        "name": "leanformer", "spatial_dims": 3, "patch_size": [16, 16, 16], "spacing_mm": [1.0, 1.0, 1.0]
    }  # fmt: skip


def test_preflight_of_a_fixed_number_of_steps_estimates_the_time(home: Path) -> None:
    few, many = (preflight(home / "site", base="ball", steps=steps) for steps in (60, 6000))
    assert few["counts"]["steps_at_least"] == few["counts"]["steps_at_most"] == 60
    assert few["seconds"][0] <= few["seconds"][1] and many["seconds"][0] > few["seconds"][0]


@pytest.mark.parametrize(
    ("site", "change", "says"),
    [
        ("none", {}, "is not a folder"),
        ("models", {}, "data set"),
        ("two", {}, "2 patients"),
        ("site", {"base": "none-such"}, "none-such"),
        ("site", {"labels": ["Liver"]}, "no label 'Liver'"),
        ("site", {"base": "ball", "mapping": {"Hole": "Liver"}}, "no label 'Liver'"),
        ("site", {"budget": "keep=7"}, "keep is 7"),
        ("site", {"device": "cuda:99"}, "cuda:99"),
        ("site", {"name": "../x"}, "../x"),
        ("site", {"seconds": 5}, "5 s"),
        ("site", {"resume": True}, "no unfinished training"),
    ],
    ids=str,
)
def test_preflight_says_no_with_the_reason_for_what_cannot_run(
    home: Path, site: str, change: dict[str, Any], says: str
) -> None:
    result = preflight(home / site, **change)
    assert result["ok"] is False
    assert says in result["reason"]["what"] and result["reason"]["meaning"] and result["reason"]["remedy"]


def test_preflight_lists_all_problems_of_a_data_set_that_cannot_be_trained_on(home: Path) -> None:
    result = preflight(home / "two")
    assert {"too few cases", "rare label"} & {problem["kind"] for problem in result["problems"]}
    assert result["problems"][0]["severity"] == "blocks training"


def test_preflight_refuses_to_overwrite_an_unfinished_training_and_counts_what_is_left_of_it(tmp_path: Path) -> None:
    a_site(tmp_path / "site")
    request = a_request(SiteDataset.open(tmp_path / "site"), name="new")
    stop: list[int] = []

    def check() -> None:
        if stop:
            raise Cancelled

    from apformer.finetuning import finetune

    with pytest.raises(Cancelled):
        finetune(request, on_event=lambda event: stop.append(1) if event["event"] == "epoch" else None, check=check)
    refused = preflight(tmp_path / "site", base="ball", seconds=600)
    assert refused["ok"] is False and "not finished" in refused["reason"]["what"]
    resumed = preflight(tmp_path / "site", base="ball", seconds=600, resume=True)
    assert resumed["ok"] is True and resumed["seconds"][0] < 600
    fresh = preflight(tmp_path / "site", base="ball", seconds=600, name="other")
    assert resumed["needed_bytes"]["disk"] < fresh["needed_bytes"]["disk"]  # cases are prepared already


def test_preflight_says_no_when_the_time_is_too_short_for_anything(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import apformer.jobs.preflight_finetune as module
    from apformer.jobs.footprint import Footprint

    monkeypatch.setattr(module, "measure", lambda work, device: Footprint(1000, (30.0, 40.0)))
    result = preflight(home / "site", base="ball", seconds=600)
    assert result["ok"] is False
    assert "steps" in result["reason"]["what"] and "more" in result["reason"]["remedy"]


@pytest.mark.parametrize(
    ("short", "says"),
    [({"free": lambda device: 1000}, "on cpu"), ({"free_on_disk": lambda folder: 1000}, "of disk space")],
    ids=["memory", "disk"],
)
def test_preflight_says_no_with_the_figures_when_memory_or_disk_is_short(
    home: Path, short: dict[str, Any], says: str
) -> None:
    checked = check_request(Request(dataset=home / "site", name="new", base="ball"))
    data = estimate_finetune(checked, CPU, **short).as_data()
    assert data["ok"] is False
    assert says in data["reason"]["what"] and "0.0 GiB are free" in data["reason"]["what"]
    assert data["reason"]["meaning"] and data["reason"]["remedy"]


def test_preflight_without_monai_says_what_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "apformer.jobs.preflight_finetune")
    monkeypatch.delitem(sys.modules, "apformer.training.losses")
    monkeypatch.setitem(sys.modules, "monai.losses", None)
    result = preflight(home / "site", base="ball")
    assert result["ok"] is False and "monai" in result["reason"]["what"]


def test_preflight_can_be_cancelled_while_it_tries(home: Path) -> None:
    def cancel(job: Job, event: Event) -> None:
        if event.data["message"] == "trying a training step":
            job.cancel()

    with pytest.raises(Cancelled):
        run_here("preflight", cancel, **{"for": "finetune", "dataset": str(home / "site"), "name": "new"})


def test_the_disk_space_is_that_of_the_prepared_cases(home: Path, tmp_path: Path) -> None:
    from apformer.finetuning.cases import SiteReader, as_case

    checked = check_request(Request(dataset=home / "site", name="new", base="ball"))
    base, sites = checked.base, checked.dataset.cases()
    assert base is not None
    plan = checked.plan()
    prepared = PreparedCases(
        [as_case(site, plan) for site in sites], tmp_path, base.preprocessing, SiteReader.of(sites, plan)
    )
    prepared.build()
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    expected = sum(Extent.of(site, base.preprocessing, 1, 3, 1).prepared_bytes for site in sites)
    assert expected <= written <= expected + 2 * 128 * len(sites)  # headers


def test_a_case_of_slices_is_many_items_and_a_volume_is_one(home: Path) -> None:
    from cli_samples import SLICES

    checked = check_request(Request(dataset=home / "site", name="new", base="ball"))
    site = checked.dataset.cases()[0]
    assert checked.base is not None
    flat = Extent.of(site, SLICES, 1, 3, 1)
    assert (flat.items, flat.tiles, flat.stored, flat.prepared_bytes) == (16, 16, 16**3, 16**3 * 3)
    solid = Extent.of(site, checked.base.preprocessing, 1, 3, 2)
    assert (solid.items, solid.tiles, solid.prepared_bytes) == (1, 1, 16**3 * 4)


def test_cross_validation_is_a_training_per_fold_and_one_on_all(home: Path) -> None:
    dataset = SiteDataset.open(home / "four")
    extents = {site.name: Extent(10, 10, 1, 1, 1) for site in dataset.cases()}
    work = Work.of(dataset.cases(), dataset.planned_split(), extents)
    sides = [(len(training), len(validation)) for training, validation in work.trainings]
    assert sorted(sides[:3]) == [(2, 2), (3, 1), (3, 1)] and sides[3] == (4, 0)
    assert {site.name for site in work.judging} == {site.name for site in work.cases} == set(extents)


def test_errors_of_a_preflight_are_those_of_the_job(home: Path) -> None:
    """What a preflight refuses, the job refuses in the same words."""
    for change in ({"labels": ["Liver"]}, {"base": "none-such"}):
        with pytest.raises(APFormerError) as caught:
            run_here("finetune", dataset=str(home / "site"), name="new", device="cpu", steps=6, **change)
        assert preflight(home / "site", **change)["reason"]["what"] == caught.value.what
