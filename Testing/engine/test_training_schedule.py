"""Time is kept, and used: schedules walked with a simulated clock. Nothing waits, and no real clock is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")
from apformer.training.clock import SLEEP_SECONDS, WorkClock
from apformer.training.counted import Counted
from apformer.training.schedule import Moment
from apformer.training.timed import VALIDATION_SHARE, Costs, Timed

DENSE, PRUNING = (1.0,), (0.5, 0.12, 0.08, 0.3)


@dataclass
class Machine:
    """A simulated machine and the training on it: everything costs seconds, as many as `slow` says at that moment.

    Attributes:
        step: seconds of one. window: of a validation's window, of which there are `windows`.
        after: seconds of what follows the training; closing: validations among it.
        slow: how many times slower the machine is at a second.
    """

    step: float
    windows: int = 40
    window: float = 0.05
    writing: float = 0.3
    after: float = 60.0
    closing: int = 5
    slow: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0
    moments: list[Moment] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    validated_at: list[float] = field(default_factory=list)
    limit: int | None = None

    def spend(self, seconds: float) -> None:
        left = seconds
        while left > 0:  # the machine may become slower in the middle
            part = min(left, 0.25)
            times = self.slow(self.now)
            self.now += part * times
            left -= part

    def train(self, seconds: float, shares: Sequence[float] = DENSE, guess: float | None = None) -> Timed:
        """All of a training as `Trainer` drives its schedule, then what follows it."""
        steps = tuple((guess or self.step) for _ in shares)
        timed = Timed(seconds, shares, Costs(steps, self.after, self.closing), WorkClock(lambda: self.now))
        self.drive(timed)
        return timed

    def drive(self, timed: Timed) -> None:
        while timed.coming() is not None:
            while (moment := timed.step()) is not None:
                self.moments.append(moment)
                self.spend(self.step)
                timed.stepped()
            if timed.validates():
                self.validate(timed)
            self.spend(self.writing)
        for _ in range(self.closing - 1):  # the last stretch ended with one
            self.validate(timed)
        self.spend(self.after)

    def validate(self, timed: Timed) -> None:
        began = self.now
        with timed.validation() as allowed:
            for seen in range(1, (self.limit or self.windows) + 1):
                self.spend(self.window)
                if self.limit is None and allowed is not None and self.now - began > allowed:
                    self.limit = seen
                    break
        self.validations.append(self.now - began)
        self.validated_at.append(began)


def thrice_as_slow_after_a_third(seconds: float) -> Callable[[float], float]:
    return lambda now: 3.0 if now > seconds / 3 else 1.0


def ends_in_time(machine: Machine, seconds: float) -> bool:
    return abs(machine.now - seconds) <= max(20.0, 0.05 * seconds)


MACHINES: dict[str, tuple[float, dict[str, Any]]] = {
    "quick": (900.0, {"step": 0.2}),
    "an hour": (3600.0, {"step": 0.5}),
    "two minutes": (120.0, {"step": 0.3, "after": 20.0}),
    "steps of 30 s": (900.0, {"step": 30.0}),
    "steps of 30 s, an hour": (3600.0, {"step": 30.0, "window": 10.0}),
    "large cases": (900.0, {"step": 2.0, "windows": 4000, "window": 1.5, "after": 250.0}),
    "costly validation, of one window": (900.0, {"step": 1.0, "windows": 1, "window": 8.0}),
    "costly pictures and checkpoints": (900.0, {"step": 0.5, "writing": 12.0}),
}


@pytest.mark.parametrize("shares", [DENSE, PRUNING], ids=["dense", "pruning"])
@pytest.mark.parametrize("slower", [False, True], ids=["even", "three times slower after a third"])
@pytest.mark.parametrize("name", MACHINES)
def test_a_training_ends_in_time_at_the_final_rate_on_any_machine(
    name: str, slower: bool, shares: tuple[float, ...]
) -> None:
    seconds, costs = MACHINES[name]
    machine = Machine(**costs, **({"slow": thrice_as_slow_after_a_third(seconds)} if slower else {}))
    if slower and name == "large cases":
        machine.after = 130.0  # 390 s when it is slower: more would not fit into the time at all
    machine.train(seconds, shares)
    assert ends_in_time(machine, seconds), machine.now
    last = machine.moments[-1]
    assert (last.stage, last.within) == (len(shares) - 1, 1.0), "the final rate is reached"
    assert last.share > 0.95
    assert sum(machine.validations) <= (VALIDATION_SHARE + 0.03) * seconds * (2 if slower else 1)
    told = [(moment.stage, moment.share) for moment in machine.moments]
    assert told == sorted(told), "no phase comes back, and no share goes back"


@pytest.mark.parametrize("name", ["quick", "an hour", "steps of 30 s, an hour", "large cases"])
def test_phases_have_their_shares_of_the_time(name: str) -> None:
    seconds, costs = MACHINES[name]
    machine = Machine(**costs)
    machine.train(seconds, PRUNING)
    passed = [sum(m.passed for m in machine.moments if m.stage == stage) for stage in range(len(PRUNING))]
    assert passed == pytest.approx(PRUNING, abs=max(0.03, machine.step / seconds))
    assert sum(m.passed for m in machine.moments) == pytest.approx(1.0)


def test_a_first_guess_ten_times_wrong_costs_no_time() -> None:
    for guess in (0.05, 5.0):
        machine = Machine(0.5)
        machine.train(600.0, PRUNING, guess=guess)
        assert ends_in_time(machine, 600.0)
        assert len(machine.moments) > 600


@pytest.mark.parametrize("writing", [0.3, 8.0])
def test_the_time_is_used_for_steps_not_for_watching(writing: float) -> None:
    machine = Machine(0.5, writing=writing)
    machine.train(900.0)
    assert len(machine.moments) * machine.step > 0.75 * (900.0 - machine.after)
    assert len(machine.validations) > 8


def test_validations_lie_evenly_over_the_training_whatever_the_first_one_is_guessed_to_cost() -> None:
    machine = Machine(step=1.0, window=0.005)  # a hundredth of what a validation may take
    machine.train(900.0)
    while_it_trains = machine.validated_at[: -machine.closing]
    apart = [b - a for a, b in pairwise(while_it_trains)]
    assert len(apart) > 15
    assert max(apart) < 1.1 * min(apart)


def test_a_costly_validation_looks_at_fewer_windows_and_always_at_the_same() -> None:
    machine = Machine(2.0, windows=4000, window=1.0, after=100.0)
    machine.train(900.0)
    assert machine.limit is not None and machine.limit < 20
    assert len(machine.validations) >= 6
    assert sum(machine.validations) <= VALIDATION_SHARE * 900.0 + 2 * max(machine.validations)


def test_without_validation_cases_nothing_is_validated() -> None:
    machine = Machine(0.5, closing=0)
    machine.closing = 1  # as `drive` counts: none after the last stretch
    timed = Timed(300.0, DENSE, Costs((0.5,), 60.0, 0), WorkClock(lambda: machine.now))
    machine.drive(timed)
    assert machine.validations == []
    assert ends_in_time(machine, 300.0)


def test_every_phase_takes_a_step_and_the_last_one_ends_it_when_steps_are_long() -> None:
    machine = Machine(30.0, window=1.0, windows=4, after=20.0)
    machine.train(400.0, PRUNING)
    assert {moment.stage for moment in machine.moments} == {0, 1, 2, 3}
    assert machine.moments[-1].within == 1.0


def test_a_step_that_had_to_wait_ends_nothing_early() -> None:
    machine = Machine(0.5)
    waited = False

    def slow(now: float) -> float:
        nonlocal waited
        if now > 480.0 and not waited:
            waited = True
            return 160.0  # a quarter of a second becomes 40
        return 1.0

    machine.slow = slow
    machine.train(600.0, PRUNING)
    assert waited
    assert ends_in_time(machine, 600.0)


@pytest.mark.parametrize("sleep", [3600.0, 8 * 3600.0])
def test_a_computer_that_slept_goes_on_where_it_was(sleep: float) -> None:
    """The clock jumps by the sleep in the middle of a step."""
    machine, awake = Machine(1.0), Machine(1.0)
    awake.train(600.0)
    slept = False

    def slow(now: float) -> float:
        nonlocal slept
        if now > 200.0 and not slept:
            slept = True
            machine.now += sleep
        return 1.0

    machine.slow = slow
    machine.train(600.0)
    assert slept
    assert machine.now - sleep == pytest.approx(awake.now, abs=20.0)
    assert machine.moments[-1].within == 1.0
    assert len(machine.moments) == pytest.approx(len(awake.moments), abs=5)


def test_the_work_clock_knows_work_from_sleep() -> None:
    now = [100.0]
    clock = WorkClock(lambda: now[0])
    for gap in (1.0, 30.0, 90.0, SLEEP_SECONDS - 1):  # long steps are work
        before = clock()
        now[0] += gap
        assert clock() - before == pytest.approx(gap)
    before = clock()
    now[0] += 1e5
    assert clock() - before <= SLEEP_SECONDS
    now[0] -= 5e4  # set back
    before = clock()
    assert clock() == before
    now[0] += 2.0
    assert clock() - before == pytest.approx(2.0)


def test_a_timed_training_goes_on_from_its_checkpoint() -> None:
    machine = Machine(0.5)
    costs = Costs((0.5,) * 4, machine.after, machine.closing)
    first = Timed(600.0, PRUNING, costs, WorkClock(lambda: machine.now))
    while first.used < 250.0 and first.coming() is not None:
        while first.step() is not None:
            machine.spend(machine.step)
            first.stepped()
        if first.validates():
            machine.validate(first)
    state = first.state()
    used, machine.now = machine.now, 1e6  # another process, another day
    again = Timed(600.0, PRUNING, costs, WorkClock(lambda: machine.now))
    again.restore(state)
    assert again.used == pytest.approx(used)
    machine.moments.clear()
    machine.drive(again)
    assert machine.now - 1e6 + used == pytest.approx(600.0, abs=30.0)
    assert machine.moments[0].share >= state["share"]
    assert machine.moments[-1].within == 1.0


@pytest.mark.parametrize("change", [{"used": -1.0}, {"used": float("nan")}, {"stage": 9}, {"validations": 3}])
def test_a_state_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    timed = Timed(600.0, PRUNING, Costs((0.5,) * 4, 10.0, 2), WorkClock(lambda: 0.0))
    with pytest.raises((ValueError, TypeError, LookupError)):
        timed.restore({**timed.state(), **change})


# ------------------------------------------------------------------ by work


def walk(counted: Counted) -> list[list[Moment]]:
    stretches: list[list[Moment]] = []
    while counted.coming() is not None:
        stretches.append([])
        while (moment := counted.step()) is not None:
            stretches[-1].append(moment)
            counted.stepped()
    return stretches


def test_so_many_steps_are_shared_by_the_phases_and_end_at_the_final_rate() -> None:
    stretches = walk(Counted.by_steps(PRUNING, 12, 3))
    moments = [moment for stretch in stretches for moment in stretch]
    assert [moment.stage for moment in moments] == [0] * 6 + [1] + [2] * 1 + [3] * 4
    assert all(len(stretch) <= 3 for stretch in stretches)
    for stage in range(4):
        own = [moment.within for moment in moments if moment.stage == stage]
        assert own == pytest.approx([(n + 1) / len(own) for n in range(len(own))])
    assert [moment.share for moment in moments] == pytest.approx([(n + 1) / 12 for n in range(12)])


def test_few_steps_leave_none_of_the_phases_out() -> None:
    moments = [moment for stretch in walk(Counted.by_steps(PRUNING, 2, 3)) for moment in stretch]
    assert {moment.stage for moment in moments} == {0, 1, 2, 3}


def test_a_counted_training_goes_on_with_the_stretch_that_comes() -> None:
    whole = walk(Counted.by_steps(PRUNING, 30, 4))
    counted = Counted.by_steps(PRUNING, 30, 4)
    counted.restore({"stretches": 3})
    assert walk(counted) == whole[3:]
    with pytest.raises(ValueError, match="99"):
        counted.restore({"stretches": 99})


def test_a_machine_is_not_taken_for_a_faster_one_when_open_gates_make_steps_shorter() -> None:
    """Half of the time would else be kept for what follows the training."""

    class Opening(Machine):
        slower: float = 0.0

        def validate(self, timed: Timed) -> None:
            super().validate(timed)
            if len(self.validations) == 2:
                self.step /= 2
                timed.changed()
            self.slower = timed.slower

    machine = Opening(0.5, after=120.0)
    machine.train(900.0)
    assert machine.slower == pytest.approx(1.0)
    assert ends_in_time(machine, 900.0), machine.now
