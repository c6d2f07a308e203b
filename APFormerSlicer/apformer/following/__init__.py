"""One patient: the network learns from the slices a user has corrected and proposes the rest of this volume anew."""

from .corrections import Corrections, Plane
from .follow import SECONDS, follow
from .followed import Followed

__all__ = ["SECONDS", "Corrections", "Followed", "Plane", "follow"]
