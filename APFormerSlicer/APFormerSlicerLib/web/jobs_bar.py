"""The running job at the foot of the page, in every step: how far it is, and a way to cancel it."""

from __future__ import annotations

import asyncio
from typing import Any

from apformer.commands.durations import in_words
from trame.widgets import html
from trame.widgets import vuetify3 as v

from ..workflow import Run
from .desk import Desk
from .parts import button
from .values import one_of

# Kind -> the value of the page's state that shows it.
_SHOWN = {"segment": "job", "follow": "job", "finetune": "training_job"}
_TICK_SECONDS = 1.0  # the time that is left is told anew, also while nothing is heard


class JobsBar:
    """One job per kind: "segment", "follow" and "finetune"."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runs: dict[str, Run] = {}
        self._ticking: asyncio.Task[None] | None = None
        desk.state.job = None
        desk.state.training_job = None
        desk.action("cancel", one_of(tuple(_SHOWN)))(self.cancel)

    def follow(self, run: Run, kind: str) -> None:
        """Show the run until it is over; how it ended is told as a notice."""
        self._runs[kind] = run
        run.changed.connect(lambda _: self._show(kind))
        run.ended.connect(lambda ended: self._tell_end(kind, ended))
        self._show(kind)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
        if run.over:  # it may have ended before it could be followed
            self._tell_end(kind, run)

    def cancel(self, kind: str = "segment") -> None:
        run = self._runs.get(kind)
        if run is not None:
            run.cancel()

    def _show(self, kind: str) -> None:
        """The run; where it is over, another one that is shown in the same place."""
        place = _SHOWN[kind]
        kinds = [kind, *(other for other, shown in _SHOWN.items() if shown == place and other != kind)]
        there = [(self._runs[one], one) for one in kinds if one in self._runs and not self._runs[one].over]
        self._desk.state[place] = _row(*there[0]) if there else None

    async def _tick(self) -> None:
        """Until no job is shown."""
        while running := [kind for kind, run in self._runs.items() if not run.over]:
            await asyncio.sleep(_TICK_SECONDS)
            with self._desk.state:
                for kind in running:
                    self._show(kind)

    def _tell_end(self, kind: str, run: Run) -> None:
        self._show(kind)
        if run.error is not None:
            self._desk.notices.error(run.error)
        elif run.status == "cancelled":
            self._desk.notices.tell(f"Cancelled: {run.title}. Nothing was changed.")

    def build(self) -> None:
        for name in ("job", "training_job"):
            with html.Div(v_if=name, classes="job"):
                v.VProgressLinear(
                    model_value=(f"{name}.percent",),
                    indeterminate=(f"{name}.percent === 0",),
                    height=3,
                    color="primary",
                )
                with html.Div(classes="job-line"):
                    html.Span(f"{{{{ {name}.title }}}}", classes="job-title")
                    html.Span(f"{{{{ {name}.line }}}}", classes="job-message")
                    button(
                        f"{{{{ {name}.cancelling ? 'Cancelling' : 'Cancel' }}}}",
                        f"trigger('cancel', [{name}.kind])",
                        "mdi-stop",
                        disabled=(f"{name}.cancelling",),
                        classes="ma-0",
                        size="x-small",
                    )


def _row(run: Run, kind: str) -> dict[str, Any]:
    left = "" if run.left_s is None else f", about {_in_words(run.left_s)} left"
    if run.is_late:
        left = ", longer than estimated"
    percent = round(100 * run.fraction)
    amount = f", {percent} %" if percent else ""
    return {
        "kind": kind,
        "title": run.title,
        "percent": percent,
        "line": f"{run.message or run.status}{amount}{left}",
        "cancelling": run.cancelling,
    }


def _in_words(seconds: float) -> str:
    """Without tenths, which would run."""
    return f"{max(seconds, 1.0):.0f} s" if seconds < 10 else in_words(seconds)
