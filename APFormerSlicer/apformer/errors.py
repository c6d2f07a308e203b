"""Errors that reach a user: what happened, what it means, what to do.

The engine raises; hosts (command line, Slicer panel, browser) show the three parts.
"""

from __future__ import annotations


class APFormerError(Exception):
    """A failure a user can act on.

    Args:
        what: what happened, naming the file or value at fault.
        meaning: why it stops the work.
        remedy: what the user can do about it.
    """

    exit_status = 1

    def __init__(self, what: str, meaning: str, remedy: str) -> None:
        super().__init__(f"{what} {meaning} {remedy}")
        self.what = what
        self.meaning = meaning
        self.remedy = remedy

    def as_dict(self) -> dict[str, str]:
        """The three parts, ready for JSON."""
        return {"what": self.what, "meaning": self.meaning, "remedy": self.remedy}


class InputError(APFormerError):
    """An image, label map or ROI cannot be used."""


class OutputError(APFormerError):
    """A result could not be written."""


class BundleError(APFormerError):
    """A model bundle is missing, damaged, hostile or does not fit."""


class DeviceError(APFormerError):
    """The requested device is absent or failed."""


class ConfigError(APFormerError):
    """A training configuration or data set cannot be used."""


class PruningError(APFormerError):
    """A network cannot be pruned."""


class UsageError(APFormerError):
    """The command line was called wrongly."""

    exit_status = 2
