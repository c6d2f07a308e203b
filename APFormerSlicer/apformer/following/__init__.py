"""One patient: the network learns from the slices a user has corrected and proposes the rest of this volume anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .corrections import Corrections, Plane

if TYPE_CHECKING:
    from .follow import SECONDS, follow
    from .followed import Followed

__all__ = ["SECONDS", "Corrections", "Followed", "Plane", "follow"]


def __getattr__(name: str) -> Any:
    """What learns brings torch along, without which a host's window compares segmentations."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .follow import SECONDS, follow
    from .followed import Followed

    # all at once: the import has put the module in the function's place
    globals().update(SECONDS=SECONDS, follow=follow, Followed=Followed)
    return globals()[name]
