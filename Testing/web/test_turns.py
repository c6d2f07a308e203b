"""Who computes next, of several users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apformer.jobs import JobClient
from APFormerSlicerLib.web.turn_worker import TurnWorker
from APFormerSlicerLib.web.turns import Ticket, Turns


def users(tickets: list[Ticket]) -> list[str]:
    return [ticket.user for ticket in tickets]


def test_a_second_user_waits_for_one_job_of_the_first_and_not_for_all() -> None:
    turns = Turns()
    for number in "123":
        turns.ask(Ticket("first", number, "segment"))
    assert users(turns.granted()) == ["first"]
    turns.ask(Ticket("second", "1", "segment"))
    assert [(ticket.user, ahead) for ticket, ahead in turns.ahead()] == [("second", 1), ("first", 2), ("first", 3)]
    turns.give_up("first", "1")
    assert users(turns.granted()) == ["second"]


def test_a_training_keeps_nobody_from_segmenting() -> None:
    turns = Turns()
    turns.ask(Ticket("first", "1", "finetune"))
    turns.ask(Ticket("second", "2", "segment"))
    assert sorted(users(turns.granted())) == ["first", "second"]


def test_following_waits_for_its_turn_with_segmenting(tmp_path: Path) -> None:
    said: list[Any] = []
    worker = TurnWorker(JobClient(tmp_path), said.append)
    for job in ("segment", "follow", "finetune"):
        worker.submit(job, {}, lambda _: None)
    assert [told["lane"] for told in said] == ["segment", "segment", "finetune"]
    assert worker.busy


def test_a_session_that_ended_gives_its_turn_and_its_places_back() -> None:
    turns = Turns()
    turns.ask(Ticket("gone", "1", "segment"))
    turns.ask(Ticket("gone", "2", "segment"))
    turns.granted()
    turns.ask(Ticket("here", "1", "segment"))
    turns.give_up("gone")
    assert users(turns.granted()) == ["here"]
    assert turns.ahead() == []
