"""Print what a page may say to its session, as JSON, from the application itself: `python list_page.py FOLDER`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
if str(SOURCES) not in sys.path:
    sys.path.insert(0, str(SOURCES))


async def listed(folder: Path) -> dict[str, Any]:
    from apformer.jobs import JobClient
    from APFormerSlicerLib.web.application import Application
    from APFormerSlicerLib.web.settings import Settings
    from APFormerSlicerLib.web.turn_worker import TurnWorker
    from trame.app import get_server

    server = get_server("listed", client_type="vue3")
    workers = tuple(TurnWorker(JobClient(folder / "logs"), lambda _: None) for _ in range(2))
    application = Application(server, workers, Settings().of_session(folder, "secret"))  # type: ignore[arg-type]
    bound: list[Any] = []
    server.controller.on_server_bind.add(bound.append)
    task = asyncio.create_task(
        server.start(exec_mode="coroutine", host="127.0.0.1", port=0, timeout=0, open_browser=False,
                     show_connection_info=False, disable_logging=True, thread=True)
    )  # fmt: skip
    await server.ready
    procedures = list(bound[0]._ws_handlers[0].functionMap)
    allowed = application.desk.allowed
    found = {
        "fields": list(allowed.fields),
        "actions": {name: len(readers) for name, readers in allowed.actions.items()},
        "triggers": list(server.controller._triggers),
        "state": list(server.state.to_dict()),
        "procedures": procedures,
        "open": list(application.gate.open),
    }
    task.cancel()
    return found


if __name__ == "__main__":
    import os

    out = os.dup(1)
    os.dup2(2, 1)
    os.write(out, json.dumps(asyncio.run(listed(Path(sys.argv[1])))).encode())
    os._exit(0)
