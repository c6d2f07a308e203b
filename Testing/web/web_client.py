"""A page without a browser: what its script says to the server, or what somebody else's script might."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgpack

ASKED_BY_A_PERSON = {
    "Accept": "text/html,*/*",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
_PATIENCE = 90.0  # s; a busy machine is no error


class Client:
    """One user's browser, in so far as the server sees it.

    Attributes:
        state: what the server has told the page. heard: everything that came over the websocket, packed.
    """

    def __init__(self, address: str, http: aiohttp.ClientSession) -> None:
        self.address, self.http = address.rstrip("/"), http
        self.state: dict[str, Any] = {}
        self.heard: list[bytes] = []
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._numbers = itertools.count()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------- the door

    async def enter(self, query: str = "") -> int:
        """Open the page, until the session is there. Returns the last status."""
        for _ in range(round(_PATIENCE / 0.3)):
            async with self.http.get(f"{self.address}/{query}", headers=ASKED_BY_A_PERSON) as answer:
                text = await answer.text()
                if answer.status != 200 or "Starting your session" not in text:
                    return answer.status
            await asyncio.sleep(0.3)
        raise AssertionError("the session does not start")

    async def connect(self) -> Client:
        """Open the websocket, say hello and take the state, as the page does."""
        origin = {"Origin": self.address}
        self._socket = await self.http.ws_connect(f"{self.address}/ws", headers=origin, max_msg_size=0)
        self._listening = asyncio.create_task(self._listen())
        await self.call("wslink.hello", {"secret": "wslink-secret"}, kind="system")
        self.state.update((await self.call("trame.state.get"))["state"])
        return self

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._listening is not None:
            await self._listening

    # ---------------------------------------------------------------- the websocket

    @property
    def connected(self) -> bool:
        return self._socket is not None and not self._socket.closed

    async def call(self, method: str, *arguments: Any, kind: str = "rpc") -> Any:
        """The answer: its result, or {"error": ...}."""
        number = f"{kind}:c0:{next(self._numbers)}"
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        await self.send({"wslink": "1.0", "id": number, "method": method, "args": list(arguments), "kwargs": {}})
        return await asyncio.wait_for(future, _PATIENCE)

    async def send(self, message: Any) -> None:
        """Anything that can be packed."""
        packed = msgpack.packb(message)
        await self.send_bytes(os.urandom(4) + struct.pack("<II", 0, len(packed)) + packed)

    async def send_bytes(self, data: bytes) -> None:
        assert self._socket is not None
        await self._socket.send_bytes(data)

    async def trigger(self, name: Any, *arguments: Any) -> Any:
        return await self.call("trame.trigger", name, list(arguments), {})

    async def set(self, name: Any, *values: Any) -> Any:
        """Set one value of the state, several times in a row."""
        return await self.call("trame.state.update", [{"key": name, "value": value} for value in values])

    async def until(self, wanted: Callable[[dict[str, Any]], Any]) -> Any:
        """What `wanted` gives of the state, once it is true of it."""
        async with asyncio.timeout(_PATIENCE):
            while not (found := wanted(self.state)):
                self._changed.clear()
                await self._changed.wait()
        return found

    async def fresh(self) -> dict[str, Any]:
        """The state as it is now."""
        return (await self.call("trame.state.get"))["state"]

    async def _listen(self) -> None:
        assert self._socket is not None
        pieces: dict[bytes, bytearray] = {}
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            number, (_, size) = message.data[:4], struct.unpack("<II", message.data[4:12])
            whole = pieces.setdefault(number, bytearray())
            whole += message.data[12:]
            if len(whole) >= size:
                self.heard.append(bytes(pieces.pop(number)))
                self._hear(msgpack.unpackb(self.heard[-1]))
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ConnectionError("the server closed the websocket"))

    def _hear(self, told: dict[str, Any]) -> None:
        number = str(told["id"])
        if number.startswith("publish:trame.state.topic"):
            self.state.update(told["result"])
        elif number in self._answers:
            self._answers.pop(number).set_result({"error": told["error"]} if "error" in told else told["result"])
        self._changed.set()

    # ---------------------------------------------------------------- files

    async def upload(self, *files: Path | tuple[str, bytes]) -> int:
        """The status; what came of it is in the state."""
        form = aiohttp.FormData(quote_fields=False)
        for file in files:
            name, content = (file.name, file.read_bytes()) if isinstance(file, Path) else file
            form.add_field("file", content, filename=name, content_type="application/octet-stream")
        async with self.http.post(f"{self.address}/upload", data=form, headers={"Origin": self.address}) as answer:
            return answer.status

    async def error(self, words: str) -> dict[str, Any]:
        """The notice that says it, once it does."""
        return await self.until(lambda state: next((one for one in state["notices"] if words in one["what"]), None))


@asynccontextmanager
async def a_visitor(address: str) -> AsyncIterator[Client]:
    """Somebody with a browser of their own, who has not opened the page yet."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        client = Client(address, http)
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def a_user(address: str, query: str = "") -> AsyncIterator[Client]:
    """Somebody whose page is open."""
    async with a_visitor(address) as client:
        assert await client.enter(query) == 200
        yield await client.connect()


def run(test: Coroutine[Any, Any, None], seconds: float = 600.0) -> None:
    """Run a test's coroutine to its end, in a thread of its own: Playwright keeps a loop in the main one."""

    async def bounded() -> None:
        await asyncio.wait_for(test, seconds)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, bounded()).result()


async def end(client: Client) -> None:
    """End the session."""
    await client.close()
    async with client.http.post(f"{client.address}/end", headers={"Origin": client.address}) as answer:
        assert answer.status == 204
