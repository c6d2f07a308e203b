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

    def seconds(self) -> dict[str, float]:
        """All that are known; none where the file is missing or damaged."""
        try:
            read: Any = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        found = read.items() if isinstance(read, dict) else ()
        return {key: float(value) for key, value in found if type(value) in (int, float) and value > 0}

    def note(self, model: str, seconds: float) -> None:
        """Remember the last one; a folder that cannot be written is no reason to lose a result."""
        from apformer.errors import OutputError
        from apformer.files import atomic_path

        if seconds <= 0:
            return
        with suppress(OutputError), atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps({**self.seconds(), model: round(seconds, 2)}), encoding="utf-8")
