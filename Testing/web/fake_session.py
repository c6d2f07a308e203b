"""A session's process without a scene: it answers at once, so that the door before it can be tested by the hundred."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import web


async def main() -> None:
    settings = json.loads(sys.stdin.buffer.readline())["settings"]

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("X-APFormer-Secret") != settings["secret"]:
            return web.Response(status=403)
        if request.path == "/ws":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket  # type: ignore[return-value]
        body = await request.read()
        return web.json_response({"folder": settings["folder"], "path": request.path, "size": len(body)})

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (Path(settings["folder"]) / "image.nii").write_bytes(b"a patient")
    os.write(1, json.dumps({"ready": runner.addresses[0][1]}).encode() + b"\n")
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
