"""Jobs from a host that runs on asyncio.

The process is watched by threads, not by the loop: asyncio has no processes on Windows' selector loop, which some web
servers need.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from .client import JobClient, outcome
from .messages import Event, Listener


class AsyncJobClient:
    """`JobClient` for coroutines. Use as `async with`, or `await close()`.

    Args:
        logs, settings: as for JobClient; `dispatch` is this client's own.
    """

    def __init__(self, logs: Path, **settings: Any) -> None:
        self._logs, self._settings = logs, settings
        self._jobs: JobClient | None = None

    async def __aenter__(self) -> AsyncJobClient:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def jobs(self) -> JobClient:
        """The client beneath, whose listeners are called in the running loop."""
        if self._jobs is None:
            dispatch = asyncio.get_running_loop().call_soon_threadsafe
            self._jobs = JobClient(self._logs, dispatch=dispatch, **self._settings)
        return self._jobs

    async def start(self) -> None:
        """Start the worker ahead of the first job. Raises JobError."""
        await asyncio.to_thread(self.jobs.start)

    async def run(self, job: str, fields: Mapping[str, Any], listener: Listener | None = None) -> dict[str, Any]:
        """The result of a job. Cancelling the task that waits for it cancels the job.

        Raises:
            JobError: the job or the worker failed.
            JobCancelledError: the job was cancelled by another.
        """
        job_id = ""
        async with aclosing(self.events(job, fields)) as events:
            async for event in events:
                job_id = event.id or job_id
                if listener is not None:
                    listener(event)
        try:
            return outcome(self.jobs.state(job_id))
        finally:
            self.jobs.forget(job_id)

    async def events(self, job: str, fields: Mapping[str, Any]) -> AsyncGenerator[Event, None]:
        """The events of a job, up to its end; a consumer that stops early cancels it."""
        heard: asyncio.Queue[Event] = asyncio.Queue()
        jobs = self.jobs
        job_id = jobs.submit(job, fields, heard.put_nowait)
        try:
            while True:
                event = await heard.get()
                yield event
                if event.ends:
                    return
        finally:
            jobs.cancel(job_id)  # does nothing when the job is over

    async def close(self) -> None:
        """Cancel what is left and end the worker."""
        if self._jobs is not None:
            await asyncio.to_thread(self._jobs.close)
