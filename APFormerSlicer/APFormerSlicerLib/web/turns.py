"""Whose job is next, of several users on one machine: one at a time in each lane, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LANES = ("segment", "finetune")  # a training of hours must not keep others from segmenting


@dataclass(frozen=True)
class Ticket:
    """One job that asks for its turn. `user`: which session; `number`: the session's own number for it."""

    user: str
    number: str
    lane: str


class Turns:
    """The user whose last turn was longest ago comes first; of one user's jobs, the one that was asked first.

    A user who sends ten jobs thus delays another's first one by a single job.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Ticket]] = {lane: [] for lane in LANES}
        self._running: dict[str, Ticket] = {}
        self._last: dict[tuple[str, str], int] = {}  # lane and user -> when that user had a turn
        self._clock = 0

    def ask(self, ticket: Ticket) -> None:
        """Wait for a turn. Raises KeyError for a lane that there is not."""
        self._waiting[ticket.lane].append(ticket)

    def give_up(self, user: str, number: str | None = None) -> None:
        """A job of the user is over, or not wanted any more; all of them without a number: the session has ended."""
        for lane in LANES:
            self._waiting[lane] = [kept for kept in self._waiting[lane] if not _is(kept, user, number)]
            if lane in self._running and _is(self._running[lane], user, number):
                del self._running[lane]
        if number is None:
            self._last = {key: when for key, when in self._last.items() if key[1] != user}

    def granted(self) -> list[Ticket]:
        """Those whose turn it is from now on."""
        found = []
        for lane in LANES:
            order = list(self._order(lane))
            if lane not in self._running and order:
                ticket = order[0]
                self._waiting[lane].remove(ticket)
                self._running[lane] = ticket
                self._clock += 1
                self._last[lane, ticket.user] = self._clock
                found.append(ticket)
        return found

    def ahead(self) -> list[tuple[Ticket, int]]:
        """Everyone who waits, and how many jobs come before."""
        found = []
        for lane in LANES:
            running = lane in self._running
            found += [(ticket, place + running) for place, ticket in enumerate(self._order(lane))]
        return found

    def _order(self, lane: str) -> Iterator[Ticket]:
        """Those who wait, as they will be called if nobody else comes."""
        last = {user: when for (of, user), when in self._last.items() if of == lane}
        left, clock = list(self._waiting[lane]), self._clock
        while left:
            ticket = min(left, key=lambda kept: last.get(kept.user, 0))  # the first of equals: asked first
            left.remove(ticket)
            clock += 1
            last[ticket.user] = clock
            yield ticket


def _is(ticket: Ticket, user: str, number: str | None) -> bool:
    return ticket.user == user and number in (None, ticket.number)
