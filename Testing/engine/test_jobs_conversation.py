"""The host's side of the talk, without a process."""

from __future__ import annotations

import itertools
import json

import pytest
from apformer.jobs import Conversation, Event, JobError, conversation
from apformer.jobs.vitals import Vitals
from hypothesis import given, settings
from hypothesis import strategies as st

GONE = JobError("The worker is gone.", "The job is lost.", "Start it again.", "/logs/worker.log", ["last line"])


def told(talk: Conversation, kind: str, identity: str | None, **data: object) -> list[Event]:
    return talk.feed(Event(kind, identity, dict(data)).encode())


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


def test_a_job_goes_from_sent_to_done(talk: Conversation) -> None:
    job, line = talk.request("segment", {"model": "liver-ct"})
    assert json.loads(line) == {"model": "liver-ct", "id": job, "job": "segment"}
    state = talk.jobs[job]
    assert state.status == "sent"
    told(talk, "accepted", job, position=0, log="/logs/a.log")
    assert (state.status, state.log) == ("queued", "/logs/a.log")
    told(talk, "progress", job, fraction=0.5, message="segmenting", eta_s=2.0)
    assert (state.status, state.fraction, state.message, state.eta_s) == ("running", 0.5, "segmenting", 2.0)
    assert talk.running is state
    (event,) = told(talk, "result", job, seconds=3)
    assert event.ends and state.over
    assert (state.status, state.result, state.fraction) == ("done", {"seconds": 3}, 1.0)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=8))
def test_events_are_the_same_in_whatever_pieces_they_arrive(cuts: list[int]) -> None:
    talk = Conversation()
    job, _ = talk.request("segment", {})
    stream = b"".join(
        [
            Event("ready", None, {"pid": 5}).encode(),
            b"a launcher says hello\r\n\n",
            Event("accepted", job, {"position": 0, "log": None}).encode(),
            Event("progress", job, {"fraction": 0.25, "message": "Schädel"}).encode(),
            Event("result", job, {"volumes_ml": {"Leber": 3.5}}).encode(),
        ]
    )
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = [event for a, b in itertools.pairwise(edges) for event in talk.feed(stream[a:b])]
    assert [event.kind for event in events] == ["ready", "accepted", "progress", "result"]
    assert talk.jobs[job].result == {"volumes_ml": {"Leber": 3.5}}
    assert talk.worker == {"pid": 5}
    assert list(talk.noise) == ["a launcher says hello"]


def test_answers_to_cancel_and_ping_and_words_after_the_end_are_not_passed_on(talk: Conversation) -> None:
    job, _ = talk.request("segment", {})
    told(talk, "result", job, seconds=1)
    assert told(talk, "error", job, what="late") == []
    assert told(talk, "result", "of-a-ping", queued=0) == []
    assert talk.jobs[job].status == "done"


def test_when_the_worker_dies_the_running_job_fails_and_the_waiting_ones_are_sent_again(talk: Conversation) -> None:
    running, _ = talk.request("segment", {"n": 1})
    waiting, line = talk.request("segment", {"n": 2})
    told(talk, "accepted", running, position=0, log="/logs/job.log")
    told(talk, "progress", running, fraction=0.1)
    told(talk, "accepted", waiting, position=1)
    (lost,) = talk.ended(GONE)
    assert (lost.kind, lost.id, lost.data["log"]) == ("error", running, "/logs/job.log")
    assert lost.data["last_lines"] == ["last line"]
    assert talk.resend() == [line]
    told(talk, "result", waiting)
    assert talk.jobs[waiting].status == "done"


def test_when_it_dies_before_any_job_began_all_fail_because_a_fresh_one_would_die_too(talk: Conversation) -> None:
    jobs = {talk.request("segment", {})[0] for _ in range(2)}
    for job in jobs:
        told(talk, "accepted", job, position=0, log="/logs/not-begun.log")
    assert {event.id for event in talk.ended(GONE)} == jobs
    assert talk.resend() == []
    assert all(state.error is not None and state.error.log == "/logs/worker.log" for state in talk.jobs.values())


def test_when_the_host_ends_it_for_a_cancelled_job_only_that_job_ends(talk: Conversation) -> None:
    stubborn, _ = talk.request("segment", {"n": 1})
    waiting, line = talk.request("segment", {"n": 2})
    told(talk, "progress", stubborn, fraction=0.1)
    assert json.loads(talk.cancel(stubborn))["target"] == stubborn
    (event,) = talk.ended(GONE, killed=True)
    assert (event.kind, event.id) == ("cancelled", stubborn)
    assert talk.resend() == [line] and not talk.jobs[waiting].over


def test_half_a_line_of_a_dead_worker_is_not_joined_to_the_next_one(talk: Conversation) -> None:
    talk.feed(b'{"event": "progress", "id": "x", ')
    talk.ended(GONE)
    assert [event.kind for event in told(talk, "ready", None, pid=6)] == ["ready"]


def test_a_job_that_is_over_cannot_be_cancelled_but_can_be_forgotten(talk: Conversation) -> None:
    job, _ = talk.request("segment", {})
    assert not talk.forget(job)
    told(talk, "cancelled", job)
    assert talk.cancel(job) == b""
    assert talk.forget(job) and job not in talk.jobs


def test_fields_that_json_cannot_hold_are_refused_before_anything_is_remembered(talk: Conversation) -> None:
    with pytest.raises(TypeError):
        talk.request("segment", {"array": object()})
    assert talk.jobs == {}


@pytest.mark.parametrize(
    "value", [None, True, "x", [], {}, -1, 1e999, float("nan"), 10**400, "\ud800", [["a"]]], ids=lambda v: ascii(v)[:12]
)
@pytest.mark.parametrize("kind", ["ready", "accepted", "progress", "error", "result", "memory", "log"])
def test_no_event_with_wrong_data_stops_the_host(talk: Conversation, kind: str, value: object) -> None:
    job, _ = talk.request("segment", {})
    names = ("pid", "memory", "log", "fraction", "message", "eta_s", "what", "last_lines", "used_bytes", "free_bytes",
             "ended", "since")  # fmt: skip
    line = json.dumps({"event": kind, "id": None if kind == "ready" else job, "data": dict.fromkeys(names, value)})
    talk.feed(line.encode() + b"\n")
    state = talk.jobs[job]
    assert talk.pid is None
    assert 0 <= state.fraction <= 1 and isinstance(state.log, str | None)
    talk.ended(GONE)
    assert state.over


def test_what_never_ends_a_line_is_not_kept(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_LONGEST_EVENT", 1000)
    for _ in range(30):
        talk.feed(b"x" * 100)
    job, _ = talk.request("segment", {})
    told(talk, "log", None)  # ends that line
    told(talk, "accepted", job)
    assert len(talk._buffer) == 0 and talk.jobs[job].status == "queued"
    assert all(len(line) <= 500 for line in talk.noise)


def test_what_the_worker_tells_of_its_memory_is_kept_and_not_passed_on(talk: Conversation) -> None:
    told(talk, "ready", None, pid=5, memory={"used_bytes": 1, "free_bytes": 9, "ended": {"machine": 0}, "since": 1.0})
    assert talk.vitals == Vitals(1, 9, {"machine": 0}, 1.0)
    assert told(talk, "memory", None, used_bytes=2, free_bytes=8, ended={}, since=2.0) == []
    assert talk.vitals == Vitals(2, 8, {}, 2.0)
    talk.ended(GONE)
    assert talk.vitals is None
