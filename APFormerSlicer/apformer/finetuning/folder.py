"""Where a training lives: SITE/trainings/NAME, with its plan, checkpoints, prepared cases, pictures and report.

When it is finished, logs, pictures and report are kept as SITE/trainings/NAME-VERSION.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..bundles.swap import unwritable
from ..errors import ConfigError, OutputError
from ..files import atomic_path
from ..files.lock import folder_lock, sweep_claims
from ..owner import HALF_MADE, HALF_WRITTEN

TRAININGS = "trainings"
PLAN = "plan.json"
REPORT, PAGE = "report.json", "report.html"
LOCK = ".lock"
PROBE = "probe"  # an untrained model, to see how long a case takes
SCHEMA = 2  # 2: rounds name the form of their network
_CHECKPOINTS = ("*/checkpoint.safetensors", "*/checkpoint.pt")  # of training.checkpoint, which takes long to import
# Of plan.json, from its first version on: what the training began with (see `setup.beginning`), seconds used, how they
# were used, and what was settled of each of the trainings it takes.
PARTS = {"began", "used", "phases", "rounds"}


class TrainingFolder:
    """The folder of one training, while it is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report, self.page = path / REPORT, path / PAGE

    @property
    def plan(self) -> dict[str, Any]:
        """What was settled and measured so far: all that a resumed training must not decide again."""
        try:
            plan = json.loads((self.path / PLAN).read_text(encoding="utf-8"))
            if plan["schema"] == SCHEMA and plan.keys() >= PARTS:
                return plan
            raise ValueError(f"schema {plan['schema']}, parts {', '.join(plan)}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"The plan of an unfinished training, {self.path / PLAN}, cannot be read ({error}).",
                "Without it, the training cannot be continued. Every finished version is safe in the model library.",
                f"Restore the file from a backup; or delete {self.path}, then start anew, without --resume.",
            ) from error

    def settle(self, **parts: Any) -> None:
        """Add to the plan; on disk before anything is built on it."""
        plan = self.plan if (self.path / PLAN).exists() else {"schema": SCHEMA}
        with atomic_path(self.path / PLAN) as temporary:
            temporary.write_text(json.dumps({**plan, **parts}, indent=1), encoding="utf-8")

    def round(self, name: str) -> Path:
        """The folder of one of the trainings that it takes."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def close(self, version: str) -> Path:
        """Drop what only an unfinished training needs, and keep logs, pictures and report as NAME-VERSION.

        Returns: where they are now.

        Raises:
            OutputError: the plan cannot be removed; the training counts as unfinished.
        """
        try:
            (self.path / PLAN).unlink(missing_ok=True)  # first: without it, the training is finished
        except OSError as error:
            raise unwritable(self.path / PLAN, error) from error
        self.sweep()
        for path in _checkpoints(self.path):
            with suppress(OSError):
                path.unlink()
        for path in [*self.path.glob("prepared-*"), *self.path.glob("*/draft"), self.path / PROBE]:
            shutil.rmtree(path, ignore_errors=True)
        try:
            return _set_aside(self.path, version)
        except OSError:  # on Windows, while a picture is open in a viewer
            return self.path

    def sweep(self) -> None:
        """Remove what killed processes left half written; only one training at a time works there, so all is."""
        for path in [
            path
            for path in self.path.rglob(".*")
            if HALF_WRITTEN.fullmatch(path.name) or HALF_MADE.fullmatch(path.name)
        ]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _set_aside(path: Path, version: str) -> Path:
    """Rename a finished training's folder; a number is added when the name is taken."""
    for number in itertools.count(1):
        kept = path.with_name(f"{path.name}-{version}" + (f"-{number}" if number > 1 else ""))
        if not kept.exists():
            os.rename(path, kept)
            return kept
    raise AssertionError("unreachable")


def unfinished(dataset: Path, name: str) -> TrainingFolder:
    """The folder of the unfinished training of `name`, not held.

    Raises:
        ConfigError: there is none.
    """
    folder = TrainingFolder(dataset / TRAININGS / name)
    if not (folder.path / PLAN).exists():
        raise ConfigError(
            f"There is no unfinished training of {name} in {dataset}.",
            "There is nothing to resume.",
            "Start it without --resume.",
        )
    return folder


@contextmanager
def training_folder(dataset: Path, name: str, resume: bool) -> Iterator[TrainingFolder]:
    """The folder of the training of `name`, held so that no second training uses the data set meanwhile.

    Raises:
        ConfigError: nothing to resume; or an unfinished training is there and was not to be resumed.
        OutputError: the data set cannot be written, or is in use by another training.
    """
    root = dataset / TRAININGS
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(root, error) from error
    with _held(root):
        if resume:
            folder = unfinished(dataset, name)
        else:
            folder = TrainingFolder(root / name)
            _make_room(folder, name, dataset)
        folder.sweep()
        try:
            yield folder
        except ConfigError:  # refused; when nothing was learned, nothing is left to continue
            if not _has_learned(folder.path):
                with suppress(OSError):
                    (folder.path / PLAN).unlink()
            raise


def _make_room(folder: TrainingFolder, name: str, dataset: Path) -> None:
    """A folder for a new training; what an earlier one left is set aside, but for prepared cases.

    Raises:
        ConfigError: an unfinished training is there.
        OutputError: the folder cannot be written.
    """
    path = folder.path
    if (path / PLAN).exists():
        raise ConfigError(
            f"A training of {name} was started in {dataset} and is not finished.",
            "Starting it anew would lose what it has learned.",
            f"Continue it with --resume, choose another name, or delete {path}.",
        )
    try:
        if folder.report.exists():  # a process was killed just after it had finished
            folder.close(_reported_version(folder.report))
        elif _has_learned(path):  # its plan was deleted
            _set_aside(path, "unfinished")
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def _reported_version(report: Path) -> str:
    try:
        return str(json.loads(report.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "finished"


def _has_learned(path: Path) -> bool:
    return any(_checkpoints(path))


def _checkpoints(path: Path) -> Iterator[Path]:
    for pattern in _CHECKPOINTS:
        yield from path.glob(pattern)


@contextmanager
def _held(root: Path) -> Iterator[None]:
    lock = folder_lock(root / LOCK, wait_s=0.0)
    try:
        lock.__enter__()
    except OutputError as error:
        if not (root / LOCK).exists():  # it is not held: the folder cannot be written
            raise
        raise OutputError(
            f"Another training is running on this data set. {error.what}",
            "Two at once would slow each other down and could overwrite each other's files.",
            "Wait for it to end, or cancel it.",
        ) from error
    sweep_claims(root / LOCK)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
