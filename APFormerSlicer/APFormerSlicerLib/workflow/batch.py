"""Several volumes, one after another: what fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apformer.errors import APFormerError, InputError

from ..scene import frames_of
from .doubts import read_doubt
from .inputs import Choice
from .runs import DONE, FAILED, STOPPED, Run
from .segmenting import Segmenting
from .signals import Signal
from .wording import sentence


class Item:
    """One volume of a batch. `status`: None before its turn, then "running", "done", "failed" or "cancelled"."""

    def __init__(self, choice: Choice, title: str = "") -> None:
        self.choice = choice
        self.title = title or _name_of(choice.volume_node)
        self.run: Run | None = None
        self.refused: APFormerError | None = None

    @property
    def status(self) -> str | None:
        if self.refused is not None:
            return FAILED
        return None if self.run is None else self.run.status

    @property
    def reason(self) -> str:
        """Why it failed; empty otherwise."""
        error = self.refused or (self.run.error if self.run is not None else None)
        return "" if error is None else sentence(error)

    @property
    def doubt(self) -> float | None:
        """How unsure the model was of it, 0 to 1; None where that is not known."""
        outcome = None if self.run is None else self.run.outcome
        return read_doubt(outcome.get("doubt") if isinstance(outcome, dict) else getattr(outcome, "doubt", None))


class Batch:
    """Volumes in their order.

    Attributes:
        left_out: names of what was asked for and is no image to segment.
        changed: an item began or ended, or made progress. ended: all are over, or the batch was cancelled.
    """

    def __init__(self, segmenting: Segmenting, choices: Sequence[Choice], left_out: Sequence[str] = ()) -> None:
        self.items = [Item(choice) for choice in choices]
        self.left_out = tuple(left_out)
        self.changed: Signal[Batch] = Signal()
        self.ended: Signal[Batch] = Signal()
        self._segmenting = segmenting
        self._next, self._stopped, self._advancing = 0, False, False

    @property
    def over(self) -> bool:
        return (self._next >= len(self.items) or self._stopped) and self.current is None

    @property
    def current(self) -> Item | None:
        return next((item for item in self.items if item.run is not None and not item.run.over), None)

    @property
    def fraction(self) -> float:
        done = sum(item.status in (DONE, FAILED, STOPPED) for item in self.items)
        current = self.current
        running = 0.0 if current is None or current.run is None else current.run.fraction
        return (done + running) / max(1, len(self.items))

    @property
    def summary(self) -> str:
        """ "3 of 4 segmented, 1 failed" """
        counts = {status: sum(item.status == status for item in self.items) for status in (DONE, FAILED)}
        left = len(self.items) - sum(counts.values())
        parts = [f"{counts[DONE]} of {len(self.items)} segmented"]
        parts += [f"{counts[FAILED]} failed"] if counts[FAILED] else []
        parts += [f"{left} not segmented" if self.over else f"{left} to go"] if left else []
        return ", ".join(parts)

    def start(self) -> None:
        """Begin with the first one.

        Raises:
            InputError: there is nothing to segment.
        """
        if not self.items:
            raise InputError("No volume is chosen.", "There is nothing to segment.", "Choose one volume or more.")
        self._advance()

    def cancel(self) -> None:
        """Cancel the present one and begin no other."""
        self._stopped = True
        current = self.current
        if current is not None and current.run is not None:
            current.run.cancel()
        else:
            self._tell_end()

    def _advance(self) -> None:
        """Begin the next that can begin; a loop, for a job may end before `start` returns."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self._stopped and self._next < len(self.items) and self.current is None:
                item = self.items[self._next]
                self._next += 1
                self._start(item)
                self.changed.emit(self)
        finally:
            self._advancing = False
        if self.over:
            self._tell_end()

    def _start(self, item: Item) -> None:
        try:
            item.run = self._begin(item)
        except APFormerError as error:
            item.refused = error
            return
        item.run.changed.connect(lambda _: self.changed.emit(self))
        item.run.ended.connect(lambda _: self._advance())

    def _begin(self, item: Item) -> Run:
        return self._segmenting.start(self._together(item.choice))

    def _together(self, choice: Choice) -> Choice:
        """Frames of one volume go to one segmentation: that of the first, when none was chosen."""
        if choice.segmentation_node is not None:
            return choice
        made = [
            item.run.outcome.written.segmentation_node
            for item in self.items
            if item.run is not None and item.status == DONE and item.choice.volume_node is choice.volume_node
        ]
        return replace(choice, segmentation_node=made[0]) if made and made[0].GetScene() is not None else choice

    def _tell_end(self) -> None:
        self.changed.emit(self)
        self.ended.emit(self)


def _name_of(volume_node: Any) -> str:
    """A script may have passed anything; what is no node is refused when its turn comes."""
    return str(volume_node.GetName()) if hasattr(volume_node, "GetName") else repr(volume_node)[:80]


def every_frame(choice: Choice) -> list[Choice]:
    """The choice for each frame of its sequence; itself for a volume that is not part of one."""
    frames = None if choice.volume_node is None else frames_of(choice.volume_node)
    if frames is None:
        return [choice]
    return [replace(choice, frame=number) for number in range(frames.count)]
