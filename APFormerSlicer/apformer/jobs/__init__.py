"""The worker process: requests in, events out. Importing this room loads nothing heavy, so that hosts can.

`python -m apformer.jobs` reads one JSON request per line and prints one JSON event per line:

    {"id": "7", "job": "segment", "array": {...}, "model": "liver-ct", "outputs": {"labels": "..."}}
    {"event": "accepted", "id": "7", "data": {"position": 0, "log": "..."}}
    {"event": "progress", "id": "7", "data": {"fraction": 0.4, "message": "segmenting", "eta_s": 3.2}}
    {"event": "result", "id": "7", "data": {...}}

Every job ends with exactly one `result`, `error` or `cancelled`. Hosts in Python use `JobClient` or `AsyncJobClient`;
a host with its own process class (Qt's QProcess) uses `Conversation`, which only turns bytes into events. Jobs wait for
each other, and a fine-tuning takes minutes to hours: a host gives it a client, and thus a worker, of its own.
"""

from typing import TYPE_CHECKING, Any

from .arrays import array_fields
from .client import JobClient
from .conversation import Conversation, JobState
from .messages import Event, JobCancelledError, JobError

if TYPE_CHECKING:
    from .aio import AsyncJobClient

__all__ = [
    "AsyncJobClient",
    "Conversation",
    "Event",
    "JobCancelledError",
    "JobClient",
    "JobError",
    "JobState",
    "array_fields",
]


def __getattr__(name: str) -> Any:
    """asyncio takes 30 to 50 ms to load, and a host with a window has no use for it."""
    if name == "AsyncJobClient":
        from .aio import AsyncJobClient

        return AsyncJobClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
