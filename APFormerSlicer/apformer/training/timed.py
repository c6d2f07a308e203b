"""A training by the clock: all that fits into a time, validations and what follows it included."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .clock import Clock
from .schedule import Moment
from .speed import Speed

VALIDATION_SHARE = 0.10  # of all time, those after the last step included
FEWEST_VALIDATIONS = 6  # while it trains; what a single one may take follows from it
MOST_VALIDATIONS = 30
ANNEALED = 0.97  # of the last stage's time: what is left of it is trained at the final rate, whatever delays it
TOLERANCE = 0.05  # of the time, by which a training may end early or late
LEAST_TOLERANCE = 20.0  # seconds
NEWS_SECONDS = 20.0  # a line of the log, a picture and a checkpoint, at most so often ...
MOST_NEWS = 60  # ... and so many in all; at least a dozen where there is little time
NEWS_SHARE = 0.03  # of the time that writing them may take


@dataclass(frozen=True)
class Costs:
    """What is known of a training's cost before it begins, in seconds.

    Attributes:
        steps: of one step of each stage.
        after: of all that follows the training and its validations, as fast as the machine was when this was measured.
        closing: validations that follow the last step: of its weights, of their average, of what is made of them.
    """

    steps: tuple[float, ...]
    after: float
    closing: int


class Timed:
    """All that fits into a time: shares of it, not numbers of steps, decide about phases, rates and validations.

    How fast the machine is now is seen in every step. What follows the training is kept free, in the machine's present
    speed; so where it has become slower, the training ends earlier.

    Args:
        seconds: until the very end, with all that follows the training.
        shares: of the training's time, per stage; their sum is 1.
        clock: seconds of work.
    """

    def __init__(self, seconds: float, shares: Sequence[float], costs: Costs, clock: Clock) -> None:
        self.seconds, self.costs, self._clock = seconds, costs, clock
        self._ends = [*list(accumulate(shares))[:-1], 1.0]
        self._began = clock()
        self._stage, self._in_stage, self._in_stretch = 0, 0, 0  # the present one; steps that were taken
        self._share = 0.0  # told last: what is told never goes back
        self._annealed = False  # whether a step was taken at the final rate
        self._speed = Speed(costs.steps)
        self._step_began = self._stretch_began = self._stretch_ended = self._began
        self._news = self._writing = 0.0  # seconds that the lines of the log took until now, and the last one
        self._validations: list[float] = []  # seconds of each
        self._of_stages_before = 0  # how many of them: those looked at images of another size
        self._validated = 0.0  # seconds after which the last one was over
        self._slow_then = 1.0  # how slow the machine was at the last of them

    # -------------------------------------------------------------- the time

    @property
    def used(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    @property
    def tolerance(self) -> float:
        """Seconds by which the end may be early or late."""
        return max(LEAST_TOLERANCE, TOLERANCE * self.seconds)

    @property
    def slower(self) -> float:
        """How many times slower the machine is than when the costs were measured."""
        return self._speed.slower

    def _end(self) -> float:
        """Seconds after which the last step is to be done."""
        closing = self.costs.closing * self._validation_seconds() + self._writing
        return self.seconds - self.costs.after * self.slower - closing

    def _validation_seconds(self) -> float:
        """Of the next one. Before any of the stage was measured, not less than half of what it may take."""
        if not self.costs.closing:
            return 0.0
        if not self._validations:
            return self._allowed() / 2
        last, slower = self._validations[-1], self.slower
        known = min(last * slower / self._slow_then, max(last, self._validations[0] * slower))
        return known if len(self._validations) > self._of_stages_before else max(known, self._allowed() / 2)

    def _allowed(self) -> float:
        """Seconds that one validation may take, so that there are enough of them."""
        return VALIDATION_SHARE * self.seconds / (FEWEST_VALIDATIONS + self.costs.closing)

    # -------------------------------------------------------------- stretches and steps

    def coming(self) -> int | None:
        """See `Schedule`."""
        self._stretch_began, self._in_stretch = self._clock(), 0
        self._writing = self._stretch_began - self._stretch_ended
        self._news += self._writing
        last = len(self._ends) - 1
        while self._stage < last and self._in_stage and self._stage_is_over():
            self._enter(self._stage + 1)
        if self._stage == last and self._in_stage and self._stage_is_over():
            return None
        return self._stage

    def _enter(self, stage: int) -> None:
        self._stage, self._in_stage = stage, 0
        self._of_stages_before = len(self._validations)
        self._speed.enter(stage)
        last = len(self._ends) - 1
        if stage != last and self._out_of_time(steps=2):  # no time for the stages between: the last one ends it all
            self._stage = last
            self._speed.enter(last)

    def _out_of_time(self, steps: int = 1) -> bool:
        """Whether so many more steps would end too late: they may by half a step, if that is little."""
        late = self.used + steps * self._speed.step - self._end()
        return late > min(self._speed.step / 2, self.tolerance / 2)

    def _stage_is_over(self) -> bool:
        if self._stage == len(self._ends) - 1:
            return self._annealed and self._out_of_time()
        ended = self.used + self._speed.step / 2 >= self._ends[self._stage] * self._end()
        return ended or self._out_of_time(steps=2)  # one is the last stage's

    def step(self) -> Moment | None:
        """See `Schedule`."""
        over = self._in_stage and self._stage_is_over()
        if over or (self._in_stretch and (self._is_news() or self._is_due())):
            self._stretch_ended = self._clock()
            return None
        moment = self._moment()
        self._annealed = self._annealed or (moment.stage == len(self._ends) - 1 and moment.within == 1.0)
        self._step_began = self._clock()
        return moment

    def stepped(self) -> None:
        """See `Schedule`."""
        self._in_stage, self._in_stretch = self._in_stage + 1, self._in_stretch + 1
        self._speed.took(self._clock() - self._step_began)

    def changed(self) -> None:
        """See `Schedule`."""
        self._speed.enter(self._stage)

    def _moment(self) -> Moment:
        end, used, step = max(self._end(), 1e-9), self.used, self._speed.step
        before, last = self._share, self._stage == len(self._ends) - 1
        begin = self._ends[self._stage - 1] if self._stage else 0.0
        length = (self._ends[self._stage] - begin) * (ANNEALED if last else 1.0)
        share = min(1.0, (used + step) / end)
        within = min(1.0, max(0.0, (share - begin) / length))
        if last and self._out_of_time(steps=2):
            within = share = 1.0  # there will be no other step after this one
        self._share = max(before, share)
        return Moment(self._stage, within, self._share, self._share - before)

    def _is_news(self) -> bool:
        return self._clock() - self._stretch_began >= self._every and self._may_write()

    @property
    def _every(self) -> float:
        """Seconds between two lines of the log."""
        return max(self.seconds / MOST_NEWS, min(NEWS_SECONDS, self.seconds / 12))

    def _may_write(self) -> bool:
        """Whether a line, with its checkpoint and its pictures, is affordable by now."""
        return self._news + self._writing <= NEWS_SHARE * self.used + self._every

    # -------------------------------------------------------------- validations

    def _is_due(self) -> bool:
        """Whether the next validation has its turn: as many as the time for them allows, evenly over what is left."""
        if not self.costs.closing:
            return False
        one, spent = self._validation_seconds(), sum(self._validations)
        left = VALIDATION_SHARE * self.seconds - spent - (self.costs.closing + 1) * one
        if left < 0 or not self._may_write():
            return False
        coming = min(MOST_VALIDATIONS - len(self._validations), 1 + left / max(one, 1e-9))
        return self.used >= self._validated + (self._end() - self._validated) / (coming + 1)

    def validates(self) -> bool:
        """See `Schedule`."""
        if not self.costs.closing:
            return False
        last = self._stage == len(self._ends) - 1 and self._stage_is_over()
        return last or self._is_due()

    @contextmanager
    def _measured(self) -> Iterator[float | None]:
        began = self._clock()
        yield self._allowed()
        seconds = self._clock() - began
        self._validations.append(seconds)
        self._validated, self._slow_then = self.used, self.slower
        self._stretch_ended += seconds  # what is news is counted by itself

    def validation(self) -> AbstractContextManager[float | None]:
        """See `Schedule`."""
        return self._measured()

    # -------------------------------------------------------------- the checkpoint

    def state(self) -> dict[str, Any]:
        """See `Schedule`."""
        return {
            "used": self.used,
            "stage": self._stage,
            "in_stage": self._in_stage,
            "share": self._share,
            "annealed": self._annealed,
            "news": self._news,
            "validations": list(self._validations),
            "of_stages_before": self._of_stages_before,
            "validated": self._validated,
            "slow_then": self._slow_then,
            "speed": self._speed.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Schedule`."""
        stage, used = int(state["stage"]), float(state["used"])
        if not (0 <= stage < len(self._ends) and math.isfinite(used) and used >= 0):
            raise ValueError(f"stage {stage}, {used} s used")
        self._began = self._clock() - used
        self._stage, self._in_stage = stage, int(state["in_stage"])
        self._share, self._annealed = float(state["share"]), bool(state["annealed"])
        self._news = float(state["news"])
        self._validations = [float(seconds) for seconds in state["validations"]]
        self._of_stages_before, self._validated = int(state["of_stages_before"]), float(state["validated"])
        self._slow_then = float(state["slow_then"])
        self._speed = Speed(self.costs.steps)
        self._speed.restore(stage, state["speed"])
        self._step_began = self._stretch_began = self._stretch_ended = self._clock()
