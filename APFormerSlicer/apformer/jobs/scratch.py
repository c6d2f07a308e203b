"""Private folders through which a host and its worker hand each other arrays."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path


class Scratch:
    """Makes such folders (mode 0700) and removes them. Made when it is first needed; from any thread."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock = threading.Lock()

    def folder(self) -> Path:
        """A new folder for one job's arrays."""
        with self._lock:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="apformer-jobs-"))
            return Path(tempfile.mkdtemp(dir=self._root))

    def discard(self, folder: Path) -> None:
        """Remove one of them, once its results are read."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what is still there."""
        with self._lock:
            root, self._root = self._root, None
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)
