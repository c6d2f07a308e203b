"""How long each model took on this computer, the last time: a file beside the user's models."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "timings.json"


class Timings:
    """Seconds by model and version, such as "liver-ct 1.1.0". `folder`: the user's models."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._noted: dict[str, float] = {}

    def seconds(self) -> dict[str, float]:
        """All that are known; of a file that is missing or damaged, nothing."""
        try:
            read: Any = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            read = {}
        found = read.items() if isinstance(read, dict) else ()
        kept = {key: float(value) for key, value in found if type(value) in (int, float) and value > 0}
        return {**kept, **self._noted}

    def note(self, model: str, seconds: float) -> None:
        """The last one, which is known from now on; `keep` puts it into the file."""
        if seconds > 0:
            self._noted[model] = round(seconds, 2)

    def keep(self) -> None:
        """Write what was noted, in any thread; a folder that cannot be written is no reason to lose a result."""
        from apformer.errors import OutputError
        from apformer.files import atomic_path

        with suppress(OutputError), atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self.seconds()), encoding="utf-8")
