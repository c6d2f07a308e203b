"""Fine-tuning through the worker: requests, events, cancelling and resuming, priority, and what a preflight says."""

from __future__ import annotations

import json
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.bundles import Bundle, ModelLibrary
from apformer.commands.finetune_check import check_request
from apformer.datasets import SiteDataset
from apformer.errors import APFormerError, ConfigError
from apformer.finetuning import Outcome, Request
from apformer.jobs import Event, JobCancelledError, JobClient
from apformer.jobs import priority as priority_module
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Fields, RequestError
from apformer.jobs.messages import Request as JobRequest
from apformer.jobs.preflight_finetune import estimate_finetune
from apformer.jobs.priority import NICENESS, run_lowered
from apformer.jobs.training_work import Extent, Work
from apformer.jobs.warm import Warm
from apformer.training.cases import PreparedCases
from finetune_samples import a_base, a_request, a_site
from job_samples import LONG, run_here

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
def library(home: Path, monkeypatch: pytest.MonkeyPatch) -> ModelLibrary:
    monkeypatch.setenv("APFORMER_MODELS", str(home / "models"))
    return ModelLibrary()


def parsed(**fields: Any) -> dict[str, Any]:
    given = Fields("finetune", fields)
    arguments = HANDLERS["finetune"].parse(given)
    given.close()
    return arguments


# ------------------------------------------------------------------ requests


def test_every_field_reaches_the_request() -> None:
    asked = {
        "dataset": "/data/site", "name": "heart", "base": "heart@1.0.0", "labels": ["RV", "Myo"],
        "mapping": {"LV": "Left ventricle"}, "replace": True, "budget": "keep=0.3", "seconds": 120, "device": "cpu",
        "threads": 2, "seed": 7, "rehearsal": False, "adopt": "never", "resume": True,
    }  # fmt: skip
    assert Request(**parsed(**asked)) == Request(
        dataset=Path("/data/site"), name="heart", base="heart@1.0.0", labels=("RV", "Myo"),
        mapping={"LV": "Left ventricle"}, replace=True, budget="keep=0.3", seconds=120.0, device="cpu", threads=2,
        seed=7, rehearsal=False, adopt="never", resume=True,
    )  # fmt: skip


@pytest.mark.parametrize("base", [{}, {"base": None}], ids=["absent", "null"])
def test_what_is_left_out_is_the_default_and_no_base_is_from_scratch(base: dict[str, None]) -> None:
    assert Request(**parsed(dataset="/data/site", name="heart", epochs=5, **base)) == Request(
        dataset=Path("/data/site"), name="heart", base=None, epochs=5
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": None}, "'dataset'"),
        ({"name": 7}, "'name'"),
        ({"labels": "RV,Myo"}, "'labels': a list of texts"),
        ({"labels": ["RV", ""]}, "'labels': a list of texts"),
        ({"labels": [1]}, "'labels': a list of texts"),
        ({"mapping": ["LV"]}, "'mapping': an object of texts"),
        ({"mapping": {"LV": 1}}, "'mapping': an object of texts"),
        ({"epochs": 2.5}, "'epochs': a whole number"),
        ({"epochs": float("nan")}, "'epochs'"),
        ({"seconds": "15min"}, "'seconds'"),
        ({"seed": -1}, "'seed'"),
        ({"threads": 0}, "'threads'"),
        ({"rehearsal": "yes"}, "'rehearsal': true or false"),
        ({"adopt": "maybe"}, "'adopt': one of better"),
        ({"epoch": 5}, "unknown field 'epoch'"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_read_is_refused_at_once(change: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parsed(**{"dataset": "/data/site", "name": "heart", **change})


def test_a_value_that_cannot_be_is_an_error_of_the_job(home: Path) -> None:
    with pytest.raises(ConfigError, match="A time of 5 s"):
        run_here("finetune", dataset=str(home / "site"), name="x", seconds=5)


# ------------------------------------------------------------------ events


class Fake:
    """Stands where `finetune` is and does as it is told."""

    def __init__(self, bundle: Bundle, does: Callable[[Any, Any], None]) -> None:
        self.bundle, self._does, self.asked = bundle, does, list[Request]()

    def __call__(self, request: Request, *, on_event: Any, check: Any) -> Outcome:
        self.asked.append(request)
        self._does(on_event, check)
        summary = {"name": "site-ball", "after": {"labels": {"Ball": {"mean_dice": float("nan")}}}, "warnings": []}
        return Outcome(self.bundle, False, "No gain.", Path("r.json"), Path("r.html"), summary)


@pytest.fixture
def faked(library: ModelLibrary, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any, Any], None]], Fake]:
    def make(does: Callable[[Any, Any], None]) -> Fake:
        fake = Fake(library.find("ball"), does)
        monkeypatch.setattr("apformer.finetuning.finetune", fake)
        return fake

    return make


def test_events_become_progress_with_the_time_left_words_and_metrics(faked: Any, home: Path) -> None:
    epoch = {"event": "epoch", "epoch": 1, "of": 2, "losses": {"total": 0.5}, "dice": None, "overlays": ["/a.png"]}
    measured = {"event": "measured", "which": "before", "labels": {"Ball": {"mean_dice": 0.5}}}

    def tell(on_event: Any, check: Any) -> None:
        on_event({"event": "progress", "fraction": 0.0, "message": "checking", "eta_s": None})
        on_event({"event": "progress", "fraction": 0.25, "message": "measuring", "eta_s": 12.0})
        on_event({"event": "log", "message": "One case was skipped."})
        on_event(measured)
        on_event(epoch)

    heard: list[Event] = []
    fake = faked(tell)
    result = run_here("finetune", lambda job, event: heard.append(event), dataset=str(home / "site"), name="site-ball")
    assert [(event.kind, event.data) for event in heard] == [
        ("progress", {"fraction": 0.0, "message": "checking", "eta_s": None}),
        ("progress", {"fraction": 0.25, "message": "measuring", "eta_s": 12.0}),
        ("log", {"message": "One case was skipped."}),
        ("metrics", measured),
        ("metrics", epoch),
    ]
    assert fake.asked == [Request(dataset=home / "site", name="site-ball", base=None)]
    assert result["model"] == {"name": "ball", "version": "1.0.0", "checksum": fake.bundle.checksum}
    assert (result["adopted"], result["verdict"], result["page"]) == (False, "No gain.", "r.html")
    line = json.loads(Event("result", "1", result).encode())["data"]
    assert line["after"]["labels"]["Ball"]["mean_dice"] is None and line["warnings"] == []


@pytest.mark.parametrize("hears_it_from", ["check", "event"])
def test_a_cancelled_job_hears_of_it_at_the_next_check_or_event(faked: Any, home: Path, hears_it_from: str) -> None:
    reached: list[str] = []

    def work(on_event: Any, check: Any) -> None:
        on_event({"event": "log", "message": "begin"})
        reached.append("cancelled meanwhile")
        check() if hears_it_from == "check" else on_event({"event": "epoch"})
        reached.append("went on")

    faked(work)
    with pytest.raises(Cancelled):
        run_here("finetune", lambda job, event: job.cancel(), dataset=str(home / "site"), name="x")
    assert reached == ["cancelled meanwhile"]


def test_the_model_that_was_kept_warm_gives_its_memory_back_first(faked: Any, home: Path) -> None:
    warm = Warm()
    kept = weakref.ref(warm.segmenter("ball", "cpu"))
    found: list[object] = []
    faked(lambda on_event, check: found.append(kept()))
    arguments = parsed(dataset=str(home / "site"), name="x")
    HANDLERS["finetune"].run(Job(JobRequest("1", "finetune"), arguments, lambda event: None, warm))
    assert found == [None]
    assert warm.segmenter("ball", "cpu").bundle.name == "ball"  # and is loaded again when it is asked for


# ------------------------------------------------------------------ priority


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority per thread")
def test_only_the_thread_of_the_work_and_those_it_starts_are_lowered() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def work() -> tuple[int, int]:
        started: list[int] = []
        thread = threading.Thread(target=lambda: started.append(niceness()))
        thread.start()
        thread.join()
        return niceness(), started[0]

    before = niceness()
    assert run_lowered(work) == (max(NICENESS, before),) * 2
    assert niceness() == before


class Process:
    """A process whose priority can be set, or only lowered, as psutil shows it."""

    def __init__(self, may_raise: bool) -> None:
        self.now, self.history, self._may_raise = 0, list[int](), may_raise

    def nice(self, value: int | None = None) -> int:
        import psutil

        if value is None:
            return self.now
        if value < self.now and not self._may_raise:
            raise psutil.AccessDenied
        self.now = value
        self.history.append(value)
        return value


@pytest.mark.parametrize(("may_raise", "history"), [(True, [NICENESS, 0]), (False, [NICENESS])])
def test_elsewhere_the_process_is_lowered_and_put_back_where_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, may_raise: bool, history: list[int]
) -> None:
    process = Process(may_raise)
    monkeypatch.setattr("psutil.Process", lambda: process)
    with priority_module._of_process():
        assert process.now == NICENESS
    assert process.history == history


@pytest.mark.parametrize("error", [Cancelled(), ConfigError("a", "b", "c"), SystemExit(3)], ids=repr)
def test_what_the_work_raises_is_raised(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_lowered(work)
    assert caught.value is error


# ------------------------------------------------------------------ the real worker


def test_a_real_worker_trains_stops_at_a_cancel_and_resumes_to_a_complete_result(home: Path, tmp_path: Path) -> None:
    """The cancel is heard by the training itself: the worker that ran it answers afterwards, and was not ended."""
    fields = {"dataset": str(home / "site"), "name": "site-ball", "base": "ball", "epochs": 3, "device": "cpu"}
    fields |= {"threads": 1, "adopt": "always", "budget": "keep=0.5"}
    begun = threading.Event()
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if event.kind == "metrics" and event.data["event"] == "epoch":
            begun.set()

    with JobClient(tmp_path / "logs", grace_seconds=LONG) as client:
        stopped = client.submit("finetune", fields, listen)
        assert begun.wait(LONG)
        client.cancel(stopped)
        with pytest.raises(JobCancelledError):
            client.wait(stopped, LONG)
        pid = (client._talk.worker or {})["pid"]
        first, heard[:] = list(heard), []
        result = client.run("finetune", {**fields, "resume": True}, listen)
        assert (client._talk.worker or {})["pid"] == pid
    epochs = [event.data["epoch"] for event in first + heard if event.data.get("event") == "epoch"]
    assert epochs == sorted(set(epochs)) and epochs[0] == 1 and epochs[-1] >= 3  # none lost, none done twice
    before = [event.data for event in first if event.data.get("event") == "measured"]
    assert [data["which"] for data in before] == ["before"] and "Ball" in before[0]["labels"]
    after = [event.data for event in heard if event.data.get("event") == "measured"]
    assert [data["which"] for data in after] == ["after"]
    assert {event.kind for event in heard} == {"accepted", "progress", "log", "metrics", "result"}
    assert heard[-1].kind == "result"
    assert result["adopted"] is True and result["model"]["name"] == "site-ball"
    assert result["data"]["training_patients"] == 6 and result["data"]["validation_patients"] == 2
    assert {label["name"]: label["how"] for label in result["labels"]} == {"Ball": "kept", "Hole": "new"}
    assert result["before"]["labels"].keys() == result["after"]["labels"].keys() == {"Ball", "Hole"}
    assert "curves" not in result and "settings" not in result
    assert json.loads(Path(result["report"]).read_text("utf-8"))["curves"]
    assert Path(result["page"]).is_file()
    assert ModelLibrary().find("site-ball").checksum == result["model"]["checksum"]


# ------------------------------------------------------------------ preflight


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
        "name": "apformer", "spatial_dims": 3, "patch_size": [16, 16, 16], "spacing_mm": [1.0, 1.0, 1.0]
    }  # fmt: skip


def test_preflight_of_a_fixed_number_of_epochs_estimates_the_time(home: Path) -> None:
    few, many = (preflight(home / "site", base="ball", epochs=epochs) for epochs in (20, 2000))
    assert few["counts"]["steps_at_least"] == few["counts"]["steps_at_most"] == 20 * 3  # 6 cases, 2 at a time
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
    request = a_request(SiteDataset.open(tmp_path / "site"), name="new", epochs=None, seconds=600.0)
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
    prepared = PreparedCases(
        [as_case(site) for site in sites], tmp_path, base.preprocessing, SiteReader.of(sites, checked.plan())
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
    assert work.steps(epochs=2, batch=4) == 2 * (20 // 4 + 2 * (30 // 4) + 40 // 4)
    assert {site.name for site in work.judging} == {site.name for site in work.cases} == set(extents)


def test_errors_of_a_preflight_are_those_of_the_job(home: Path) -> None:
    """What a preflight refuses, the job refuses in the same words."""
    for change in ({"labels": ["Liver"]}, {"base": "none-such"}):
        with pytest.raises(APFormerError) as caught:
            run_here("finetune", dataset=str(home / "site"), name="new", device="cpu", epochs=2, **change)
        assert preflight(home / "site", **change)["reason"]["what"] == caught.value.what
