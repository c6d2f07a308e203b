"""One patient: a network learns from what a user has corrected or outlined on some slices, and proposes the rest of
this volume (`follow` with a model, `between.between` without)."""

from .corrections import Corrections, Plane
from .follow import SECONDS, follow
from .followed import Followed

__all__ = ["SECONDS", "Corrections", "Followed", "Plane", "follow"]
