"""Changes to the models that the worker process makes, so that a host's window neither waits nor loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apformer.bundles import ModelLibrary

from .hosts import Worker
from .runs import Run
from .versions import Versions


@dataclass(frozen=True)
class Changed:
    """What a change left.

    Attributes:
        name, version: of the model that is active now; empty after an export.
        present: an import was not made, because a model of that name is there: ask, then repeat it with `replace`.
        path: the file that an export wrote.
    """

    name: str = ""
    version: str = ""
    present: bool = False
    path: Path | None = None

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Changed:
        return Changed(
            str(data.get("name", "")),
            str(data.get("version", "")),
            bool(data.get("present")),
            Path(data["path"]) if "path" in data else None,
        )


class Changes:
    """As the methods of `Versions`, but each is a job: the outcome of its run is `Changed`.

    Every version is proved first, weights and all, which takes seconds. `Versions.changed` tells of what was changed.
    """

    def __init__(self, worker: Worker, library: ModelLibrary, versions: Versions) -> None:
        self._worker, self._library, self._versions = worker, library, versions
        self._runs: list[Run] = []

    def adopt(self, reference: str, why: str = "") -> Run:
        """Make a version, NAME@VERSION, what its name stands for.

        Raises:
            JobError: no worker can be started; as for the others here.
        """
        return self._start(f"adoption of {reference}", change="activate", model=reference, why=why)

    def roll_back(self, name: str, why: str = "") -> Run:
        """Make active again what was before; the version that is active now is kept."""
        return self._start(f"step back of {name}", change="rollback", model=name, why=why)

    def export(self, reference: str, path: Path) -> Run:
        """Write a version to a zip file."""
        return self._start(f"export of {reference}", change="export", model=reference, path=str(path))

    def import_zip(self, path: Path, *, replace: bool = False) -> Run:
        """Install the model in a zip file; see `Changed.present`."""
        return self._start(f"import of {path.name}", change="import", path=str(path), replace=replace)

    def stop(self) -> None:
        """The program is being closed; what is being written is written wholly or not at all."""
        for run in list(self._runs):
            run.cancel()

    def _start(self, title: str, **fields: Any) -> Run:
        run = Run(self._worker, "models", title, self._finish)
        asked = {name: value for name, value in fields.items() if value != ""}
        run.start({**asked, "roots": [str(root) for root in self._library.roots]})
        if not run.over:
            self._runs.append(run)
            run.ended.connect(self._runs.remove)
        return run

    def _finish(self, data: dict[str, Any]) -> Changed:
        changed = Changed.from_data(data)
        if changed.version:
            self._versions.changed.emit(changed.name)
        return changed
