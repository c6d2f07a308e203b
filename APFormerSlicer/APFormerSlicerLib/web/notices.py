"""What the user must be told: errors as what happened, what it means and what to do; warnings; news."""

from __future__ import annotations

import asyncio
import functools
import itertools
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from apformer.errors import APFormerError

_FADE_SECONDS = 8.0  # long enough to be read twice
_MOST = 4  # shown at once; the oldest goes first


class Notices:
    """The list in the page's state, newest first."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._numbers = itertools.count(1)
        state.notices = []

    def error(self, error: APFormerError) -> None:
        self._add("error", error.what, error.meaning, error.remedy)

    def warn(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._add("warning", text)

    def tell(self, text: str, stays: bool = False) -> None:
        """News, which fade and are not seen in other steps: they say that all is well. `stays`: the user is to do
        something about them."""
        self._add("info", text, step="" if stays else self._state.step)
        number = self._state.notices[0]["id"]
        if not stays:
            with suppress(RuntimeError):  # no loop: the page is not there yet
                asyncio.get_running_loop().call_later(_FADE_SECONDS, self._fade, number)

    def _fade(self, number: int) -> None:
        with self._state:
            self.dismiss(number)

    def dismiss(self, number: int) -> None:
        self._state.notices = [notice for notice in self._state.notices if notice["id"] != number]

    def clear(self, kind: str | None = None) -> None:
        """Remove those of a kind, or all."""
        self._state.notices = [notice for notice in self._state.notices if kind not in (None, notice["kind"])]

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose errors are shown instead of raised; it then gives None."""

        @functools.wraps(function)
        def guarded(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except APFormerError as error:
                self.error(error)
            except Exception as error:  # noqa: BLE001  the page must stay usable, whatever went wrong
                self.fault(error)
            return None

        return guarded

    def fault(self, error: Exception) -> None:
        """Something that no user can be blamed for: the log of the server has the rest."""
        traceback.print_exception(error)
        self._add(
            "error",
            f"Something unexpected happened ({type(error).__name__}).",
            "The step was not done; everything before it is kept.",
            "Try again; if it happens again, report it with the server's output.",
        )

    def _add(self, kind: str, what: str, meaning: str = "", remedy: str = "", step: str = "") -> None:
        """`step`: the only one in which it is seen; "" for all."""
        same = [notice for notice in self._state.notices if (notice["kind"], notice["what"]) != (kind, what)]
        notice = {"id": next(self._numbers), "kind": kind, "what": what, "meaning": meaning, "remedy": remedy}
        notice["step"] = step
        self._state.notices = [notice, *same][:_MOST]
