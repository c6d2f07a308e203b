"""Fine-tuning on a site's own cases: watched, cancellable, resumable, judged against what was there before.

`Request` can be made without loading torch; `finetune` and `Outcome` load it when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .request import Request

if TYPE_CHECKING:
    from .outcome import Outcome
    from .session import finetune

__all__ = ["Outcome", "Request", "finetune"]


def __getattr__(name: str) -> Any:
    if name == "finetune":
        from .session import finetune

        return finetune
    if name == "Outcome":
        from .outcome import Outcome

        return Outcome
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
