"""One process per user: started, watched, given turns, ended, and its files removed."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apformer.jobs import processes
from apformer.jobs.scratch import WEB, private_folder, sweep

from .lines import Message, encode, parse
from .settings import Settings
from .turns import Ticket, Turns

# Until a page that was opened connects: a browser takes one or two, and asks every second while the process starts.
# Whoever makes somebody else's browser ask for the page, in a picture or a prefetch, holds a place no longer.
_LOOK_SECONDS = 30.0
_END_SECONDS = 6.0  # a worker that is told to stop has its own grace before that
_LONGEST_LINE = 1 << 20
_COMMAND = (sys.executable, "-m", "APFormerSlicerLib.web.session")
_MOST_ENDED = 1000  # sessions whose end is remembered, to tell their users


@dataclass(eq=False)
class Session:
    """A user's process.

    Attributes:
        key: what the user's cookie says. secret: what the process demands of every request, so that nobody else on
            this computer can talk to it. folder: private; holds all that the user uploads and makes.
        port: on the loopback interface; None while it starts.
        ended: why it is over; None while it is not.
        sockets: how many tabs are connected. looked_at: whether one ever was. asked: when its user asked for anything
            last, as the loop tells time.
    """

    key: str
    secret: str
    folder: Path
    process: asyncio.subprocess.Process
    port: int | None = None
    ended: str | None = None
    sockets: int = 0
    looked_at: bool = False
    asked: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, message: Message) -> None:
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            with suppress(ConnectionError, RuntimeError):
                stdin.write(encode(message))

    async def ready(self, seconds: float) -> bool:
        """Whether it answers, after at most `seconds`."""
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(seconds):
                while self.port is None and self.ended is None:
                    self.changed.clear()
                    await self.changed.wait()
        return self.port is not None and self.ended is None


class Sessions:
    """The processes of all users.

    One is started ahead of the first user, who then need not wait for it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = Turns()
        self._known: dict[str, Session] = {}  # by the key that a user's cookie says
        self._ended: dict[str, str] = {}  # key -> why it is over
        self._spare: Session | None = None
        self._opening = 0  # places of users whose process is being started
        self._tasks: set[asyncio.Task[Any]] = set()
        self._root = private_folder(WEB)

    async def prepare(self) -> None:
        """Remove what servers left that were killed, and start the process of the first user."""
        self._keep(asyncio.to_thread(sweep))
        self._spare = await self._start()

    def find(self, key: str | None) -> Session | None:
        """The session of a cookie; None when there is none, or it is over."""
        session = self._known.get(key or "")
        return None if session is None or session.ended is not None else session

    def why_ended(self, key: str) -> str | None:
        """Why the session of a cookie is over; None for a cookie that was never given, or long ago."""
        return self._ended.get(key)

    async def end(self, session: Session) -> None:
        """End a session because its user said so. Its files are gone when this returns."""
        self._forget(session, "You ended it")
        await self._end(session)

    @property
    def full(self) -> bool:
        return len(self._known) + self._opening >= self._settings.users

    async def open(self) -> Session:
        """A session for a new user, which may still be starting. Raises RuntimeError when there is no place."""
        if self.full:
            raise RuntimeError("every place is taken")
        session, self._spare = self._spare, None
        if session is None or session.ended is not None:
            self._opening += 1
            try:
                session = await self._start()
            finally:
                self._opening -= 1
        self._known[session.key] = session
        session.asked = asyncio.get_running_loop().time()
        self._keep(self._expect(session))
        return session

    async def _expect(self, session: Session) -> None:
        """End a session whose page never connects: its place is for somebody else."""
        loop = asyncio.get_running_loop()
        while not session.looked_at and session.ended is None:
            left = session.asked + _LOOK_SECONDS - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self._forget(session, "Its page did not connect within some seconds")
                await self._end(session)

    async def close(self) -> None:
        """End all processes and remove all their files."""
        sessions = [*self._known.values(), *([self._spare] if self._spare else [])]
        await asyncio.gather(*(self._end(session) for session in sessions))
        for task in list(self._tasks):
            task.cancel()
        shutil.rmtree(self._root, ignore_errors=True)

    async def _start(self) -> Session:
        folder = Path(tempfile.mkdtemp(prefix="session-", dir=self._root))
        grouped: dict[str, Any] = {} if sys.platform == "win32" else {"start_new_session": True}
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=processes.child_environment(),
            limit=_LONGEST_LINE,
            **grouped,
        )
        session = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), folder, process)
        session.say({"settings": self._settings.of_session(folder, session.secret)})
        self._keep(self._watch(session))
        return session

    def _keep(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, session: Session) -> None:
        """Hear the process until it ends; then nothing of it stays. Its workers end with it: their stdin does."""
        stdout = session.process.stdout
        assert stdout is not None
        try:
            while line := await stdout.readline():
                self._hear(session, parse(line) or {})
        except ValueError:  # a line without an end
            processes.end_tree(session.process.pid)
        finally:
            code = await session.process.wait()
            self._forget(session, _why(code))
            self._turns.give_up(session.key)
            self._call()
            shutil.rmtree(session.folder, ignore_errors=True)

    def _forget(self, session: Session, why: str) -> None:
        """It is over, but for the reason."""
        session.ended = session.ended or why
        session.changed.set()
        if self._known.pop(session.key, None) is not None:
            self._ended[session.key] = session.ended
            for oldest in list(self._ended)[:-_MOST_ENDED]:
                del self._ended[oldest]

    def _hear(self, session: Session, message: Message) -> None:
        if isinstance(message.get("ready"), int):
            session.port = message["ready"]
            if session.asked:
                session.asked = asyncio.get_running_loop().time()
            session.changed.set()
        elif "ask" in message:
            with suppress(KeyError):
                self._turns.ask(Ticket(session.key, str(message["ask"]), str(message.get("lane"))))
            self._call()
        elif "over" in message:
            self._turns.give_up(session.key, str(message["over"]))
            self._call()

    def _call(self) -> None:
        """Tell those whose turn it is, and everyone else how long the line is."""
        for ticket in self._turns.granted():
            if ticket.user in self._known:
                self._known[ticket.user].say({"turn": ticket.number})
        for ticket, ahead in self._turns.ahead():
            if ticket.user in self._known:
                self._known[ticket.user].say({"of": ticket.number, "ahead": ahead})

    async def _end(self, session: Session) -> None:
        """Ask it to end by closing its stdin; end it when it does not."""
        if session.process.stdin is not None:
            session.process.stdin.close()
        try:
            await asyncio.wait_for(session.process.wait(), _END_SECONDS)
        except TimeoutError:
            processes.end_tree(session.process.pid)
            await session.process.wait()
        shutil.rmtree(session.folder, ignore_errors=True)


def _why(code: int) -> str:
    """Of a process that ended by itself, or was ended from outside."""
    return f"Its process ended with status {code}" if code else "Nobody looked at it for a while"
