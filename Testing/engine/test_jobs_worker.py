"""The worker's loop in this process: order, cancellation, faults, and the end of its host."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apformer.errors import InputError
from apformer.jobs import worker as worker_module
from apformer.jobs.handlers import Handler
from apformer.jobs.job import Job, Pace
from apformer.jobs.logs import LogFolder
from apformer.jobs.messages import LONGEST_LINE, Event, Fields, Request
from apformer.jobs.vitals import BEAT_SECONDS
from apformer.jobs.warm import Warm
from apformer.jobs.worker import read_lines
from job_samples import LONG, Host, handler


class Mute(Exception):  # noqa: N818
    """An error, or a result, without a text."""

    def __str__(self) -> str:
        raise ValueError


class Gate:
    """A handler that stays until it is let go, and looks for cancellation meanwhile."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.order: list[str] = []

    def run(self, job: Job) -> dict[str, Any]:
        self.order.append(job.id)
        while not self.open.wait(0.005):
            job.check()
        return {"worked": job.id}


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def test_ready_comes_first_and_says_what_can_be_asked() -> None:
    with Host() as host:
        host.send("ping", "p")
        host.ending_of("p")
    assert host.events[0].kind == "ready"
    assert host.events[0].data["pid"] == os.getpid()
    assert host.events[0].data["jobs"] == [
        "benchmark",
        "check",
        "evaluate",
        "finetune",
        "follow",
        "models",
        "preflight",
        "segment",
        "store",
    ]


def test_jobs_run_one_after_the_other_in_the_order_of_their_requests(gate: Gate) -> None:
    with Host({"work": handler(gate.run)}) as host:
        for name in ("a", "b", "c"):
            host.send("work", name)
        positions = [host.wait_for(lambda e, n=name: e.kind == "accepted" and e.id == n).data for name in "abc"]
        gate.open.set()
        endings = [host.ending_of(name) for name in "abc"]
    assert [position["position"] for position in positions] == [0, 1, 2]
    assert gate.order == ["a", "b", "c"]
    assert [ending.data for ending in endings] == [{"worked": "a"}, {"worked": "b"}, {"worked": "c"}]
    assert host.kinds("b") == ["accepted", "progress", "result"]


def test_ping_is_answered_while_a_job_runs(gate: Gate) -> None:
    with Host({"work": handler(gate.run)}) as host:
        host.send("work", "a")
        host.wait_for(lambda event: event.kind == "progress")
        host.send("work", "b")
        host.send("ping", "p")
        assert host.ending_of("p").data == {"running": "a", "queued": 1}


def test_a_running_job_is_cancelled_and_the_next_one_runs(gate: Gate) -> None:
    with Host({"work": handler(gate.run), "quick": handler(lambda job: {})}) as host:
        host.send("work", "a")
        host.wait_for(lambda event: event.kind == "progress")
        host.send("quick", "b")
        host.send("cancel", "c", target="a")
        assert host.ending_of("a").kind == "cancelled"
        assert host.ending_of("b").kind == "result"
        assert host.ending_of("c").data == {"target": "a", "was": "running"}


def test_a_waiting_job_is_cancelled_without_being_begun(gate: Gate) -> None:
    with Host({"work": handler(gate.run)}) as host:
        host.send("work", "a")
        host.send("work", "b")
        host.send("cancel", "c", target="b")
        assert host.ending_of("b").kind == "cancelled"
        gate.open.set()
        host.ending_of("a")
    assert gate.order == ["a"]
    assert host.kinds("b") == ["accepted", "cancelled"]


def test_cancelling_what_is_not_there_is_no_fault() -> None:
    with Host({}) as host:
        host.send("cancel", "c", target="nobody")
        assert host.ending_of("c").data["was"] == "unknown"


def test_code_that_survives_every_exception_does_not_survive_cancellation(gate: Gate) -> None:
    def survive(job: Job) -> dict[str, Any]:
        while True:
            try:
                job.check()
                gate.open.wait(0.005)
            except Exception:  # noqa: BLE001
                continue

    with Host({"work": handler(survive)}) as host:
        host.send("work", "a")
        host.wait_for(lambda event: event.kind == "progress")
        host.send("cancel", "c", target="a")
        assert host.ending_of("a").kind == "cancelled"


@pytest.mark.parametrize(
    "line",
    [b"nonsense\n", b"\xff\xff\n", b"{}\n", b'{"id": "x"}\n', b"x" * (LONGEST_LINE * 2) + b"\n"],
    ids=["words", "bytes", "empty", "no job", "endless"],
)
def test_a_malformed_line_is_an_error_and_the_worker_goes_on(line: bytes) -> None:
    with Host({"work": handler(lambda job: {})}) as host:
        host.send_bytes(line)
        error = host.wait_for(lambda event: event.kind == "error")
        host.send("work", "a")
        assert host.ending_of("a").kind == "result"
    assert error.id is None
    assert error.data["what"] and error.data["meaning"] and error.data["remedy"]


def test_an_unknown_job_and_a_wrong_field_are_errors_of_that_request() -> None:
    with Host() as host:
        host.send("fly", "a")
        host.send("segment", "b", model="liver-ct")
        host.send("cancel", "c", goal="a")
        assert "segment" in host.ending_of("a").data["remedy"]
        assert "'outputs'" in host.ending_of("b").data["what"]
        assert "'target'" in host.ending_of("c").data["what"]
    assert host.kinds("b") == ["error"]


def test_a_second_job_of_the_same_id_is_refused_without_ending_the_first(gate: Gate) -> None:
    with Host({"work": handler(gate.run)}) as host:
        host.send("work", "a")
        host.send("work", "a")
        refused = host.wait_for(lambda event: event.kind == "error")
        gate.open.set()
        assert host.ending_of("a").kind == "result"
    assert refused.id is None and "'a'" in refused.data["what"]


def fail(job: Job) -> dict[str, Any]:
    raise {"input": InputError("It is empty.", "Nothing to do.", "Choose another.")}.get(job.id) or ZeroDivisionError


def test_a_failed_job_says_what_happened_and_where_its_log_is(tmp_path: Path) -> None:
    with Host({"work": handler(fail)}, tmp_path / "logs") as host:
        host.send("work", "input")
        host.send("work", "other")
        known, unknown = host.ending_of("input").data, host.ending_of("other").data
    assert (known["what"], known["meaning"], known["remedy"]) == ("It is empty.", "Nothing to do.", "Choose another.")
    assert "ZeroDivisionError" in unknown["what"] and unknown["remedy"]
    for data, name in ((known, "InputError"), (unknown, "ZeroDivisionError")):
        log = Path(data["log"])
        assert log.parent == tmp_path / "logs"
        assert f"{name}" in log.read_text("utf-8") and "Traceback" in log.read_text("utf-8")
    assert known["log"] != unknown["log"]
    assert host.wait_for(lambda event: event.id == "other" and event.kind == "accepted").data["log"] == unknown["log"]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RecursionError("\ud800"),
        Mute(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_in_a_job_ends_the_worker(error: BaseException) -> None:
    def run(job: Job) -> dict[str, Any]:
        raise error

    with Host({"work": handler(run), "quick": handler(lambda job: {})}) as host:
        host.send("work", "a")
        host.send("quick", "b")
        assert host.ending_of("a").kind == "error"
        assert host.ending_of("b").kind == "result"
    if isinstance(error, MemoryError) or "memory" in repr(error):
        assert "memory" in host.ending_of("a").data["what"]


def test_a_result_that_cannot_be_told_is_an_error_of_its_job_and_others_go_on() -> None:
    with Host({"work": handler(lambda job: {"mask": Mute()}), "quick": handler(lambda job: {})}) as host:
        host.send("work", "a")
        host.send("quick", "b")
        assert host.ending_of("a").kind == "error" and host.ending_of("a").data["remedy"]
        assert host.ending_of("b").kind == "result"


def test_a_fault_while_a_request_is_read_is_an_error_of_that_request_and_the_worker_goes_on() -> None:
    def stumble(fields: Fields) -> None:
        raise ZeroDivisionError

    with Host({"work": Handler(stumble, lambda job: {}), "quick": handler(lambda job: {})}) as host:
        host.send("work", "a")
        host.send("quick", "b")
        assert "ZeroDivisionError" in host.ending_of("a").data["what"]
        assert host.ending_of("b").kind == "result"


def test_a_log_that_cannot_be_opened_fails_its_job_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LogFolder, path: Path | None) -> None:
        raise OSError(24, "Too many open files")

    with Host({"quick": handler(lambda job: {})}, tmp_path) as host:
        with monkeypatch.context() as patch:
            patch.setattr(LogFolder, "opened", full)
            host.send("quick", "a")
            assert "Too many open files" in host.ending_of("a").data["what"]
        host.send("quick", "b")
        assert host.ending_of("b").kind == "result"


def test_the_worker_tells_of_its_memory_while_a_job_runs_and_is_silent_between_jobs(gate: Gate) -> None:
    with Host({"work": handler(gate.run)}) as host:
        host.send("work", "a")
        host.wait_for(lambda event: event.kind == "memory" and event.data["used_bytes"] > 0)
        gate.open.set()
        host.ending_of("a")
        told = host.kinds(None).count("memory")
        assert not threading.Event().wait(1.2 * BEAT_SECONDS) and host.kinds(None).count("memory") <= told + 1


def test_the_end_of_stdin_cancels_the_running_job_and_drops_the_waiting_one(gate: Gate) -> None:
    with Host({"work": handler(gate.run)}) as host:
        host.send("work", "a")
        host.wait_for(lambda event: event.kind == "progress")
        host.send("work", "b")
        assert host.hang_up() is True
    assert host.ending_of("a").kind == "cancelled"
    assert host.ending_of("b").kind == "cancelled"


def test_shutdown_does_the_same_and_is_answered(gate: Gate) -> None:
    host = Host({"work": handler(gate.run)})
    with host:
        host.send("work", "a")
        host.send("shutdown", "s")
        host.wait_for(lambda event: event.id == "a" and event.ends)
    assert host.ending_of("s").kind == "result"
    assert host.stopped is True


def test_a_job_that_cannot_be_stopped_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "GRACE_SECONDS", 0.05)
    release = threading.Event()
    with Host({"work": handler(lambda job: {"late": release.wait(LONG)})}) as host:
        host.send("work", "a")
        host.wait_for(lambda event: event.kind == "progress")
        assert host.hang_up() is False
    release.set()


def test_an_import_that_fails_at_the_start_is_told_by_the_job_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Warm | None = None) -> None:
        raise ImportError("no torch here")

    monkeypatch.setattr(Warm, "prepare", broken)
    with Host({"quick": handler(lambda job: {})}) as host:
        host.send("quick", "a")
        assert host.ending_of("a").kind == "result"


def test_a_line_that_breaks_off_is_not_a_request(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(b'{"a": 1}\r\n\n  \n{"b": 2}\n{"id": "half')
    with (tmp_path / "stream").open("rb") as stream:
        assert list(read_lines(stream)) == [b'{"a": 1}', b'{"b": 2}']


# ------------------------------------------------------------------ what a job tells


class Watch:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_seconds_left_follow_from_the_pace_and_start_anew_when_the_fraction_falls() -> None:
    watch = Watch()
    pace = Pace(watch)
    assert pace.eta_s(0.0) is None
    watch.now = 2.0
    assert pace.eta_s(0.25) == pytest.approx(6.0)
    watch.now = 3.0
    assert pace.eta_s(0.1) is None  # all is run again
    watch.now = 5.0
    assert pace.eta_s(0.5) == pytest.approx(2.0 * 0.5 / 0.4, abs=0.06)


def test_progress_is_told_ten_times_a_second_at_most_but_every_step_and_the_end() -> None:
    told: list[Event] = []
    watch = Watch()
    job = Job(Request("1", "segment"), None, told.append, Warm(), clock=watch)
    for step in range(1000):
        watch.now = step / 1000
        job.progress(step / 1000, "segmenting")
    job.progress(1.0, "segmenting")
    job.progress(1.0, "writing")
    assert 8 <= len(told) <= 13
    assert [event.data["message"] for event in told[-2:]] == ["segmenting", "writing"]
    assert told[-2].data["fraction"] == 1.0
    assert all(0 <= event.data["fraction"] <= 1 for event in told)


def test_metrics_and_words_are_events_and_words_are_in_the_log_too(tmp_path: Path) -> None:
    def run(job: Job) -> dict[str, Any]:
        job.say("epoch 1 of 2")
        job.metrics({"dice": {"liver": 0.9}, "loss": float("nan")})
        return {}

    with Host({"work": handler(run)}, tmp_path) as host:
        host.send("work", "a")
        log = host.wait_for(lambda event: event.kind == "accepted").data["log"]
        host.ending_of("a")
    assert host.wait_for(lambda event: event.kind == "log").data == {"message": "epoch 1 of 2"}
    metrics = host.wait_for(lambda event: event.kind == "metrics")
    assert b'"loss": null' in metrics.encode()
    assert "epoch 1 of 2" in Path(log).read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_a_log_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with Host({"work": handler(lambda job: {})}, tmp_path) as host:
        host.send("work", "a/../b c")
        log = Path(host.wait_for(lambda event: event.kind == "accepted").data["log"])
        host.ending_of("a/../b c")
    assert log.parent == tmp_path
    assert log.stat().st_mode & 0o777 == 0o600
