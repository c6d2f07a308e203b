"""Fine-tuning through the worker: requests, events, cancelling and resuming, and at what priority."""

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
from apformer.errors import ConfigError
from apformer.finetuning import Outcome, Request
from apformer.jobs import Event, JobCancelledError, JobClient
from apformer.jobs import priority as priority_module
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Fields, RequestError
from apformer.jobs.messages import Request as JobRequest
from apformer.jobs.priority import NICENESS, run_lowered
from apformer.jobs.warm import Warm
from finetune_samples import a_base, a_site
from job_samples import LONG, run_here


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model `ball` and a data set of eight patients."""
    home = tmp_path_factory.mktemp("home")
    a_base(ModelLibrary([home / "models"]))
    a_site(home / "site")
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
    assert Request(**parsed(dataset="/data/site", name="heart", steps=15, **base)) == Request(
        dataset=Path("/data/site"), name="heart", base=None, steps=15
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
        ({"steps": 2.5}, "'steps': a whole number"),
        ({"steps": float("nan")}, "'steps'"),
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
    epoch = {"event": "epoch", "epoch": 1, "step": 40, "losses": {"total": 0.5}, "dice": None, "overlays": ["/a.png"]}
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


def test_a_job_that_was_cancelled_gives_its_memory_back_too(
    faked: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.nn.Module]] = []
    alive: list[list[bool]] = []

    def work(on_event: Any, check: Any) -> None:
        network = torch.nn.Linear(2, 2)
        held.append(weakref.ref(network))
        raise Cancelled

    monkeypatch.setattr(Warm, "release", lambda self: alive.append([each() is not None for each in held]))
    faked(work)
    with pytest.raises(Cancelled):
        run_here("finetune", dataset=str(home / "site"), name="x")
    assert alive == [[], [False]]


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
    fields = {"dataset": str(home / "site"), "name": "site-ball", "base": "ball", "steps": 9, "device": "cpu"}
    fields |= {"threads": 1, "adopt": "always"}
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
    assert epochs == [1, 2, 3]  # none lost, none done twice
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
