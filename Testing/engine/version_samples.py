"""What the version tests work on: copies of one model under other names and versions, and writers that are killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from apformer.bundles import ModelLibrary
from bundle_samples import METADATA, edit_json

NAME = "mine"


def copy_as(source: Path, folder: Path, name: str, version: str, **metadata: object) -> Path:
    """The bundle in `source`, copied to `folder` under another name and version."""
    shutil.copytree(source, folder)
    edit_json(folder, METADATA, lambda data: data.update(name=name, version=version, **metadata))
    return folder


def copier(source: Path, name: str, version: str, **metadata: object) -> Callable[[Path], Path]:
    """What `ModelLibrary.add_version` takes: writes the copy to the folder that it is given."""
    return lambda folder: copy_as(source, folder, name, version, **metadata)


def add_versions(library: ModelLibrary, source: Path, name: str, *versions: str, adopt: bool = False) -> None:
    """Add copies as versions of `name`; with `adopt`, activate each at once."""
    for version in versions:
        library.add_version(copier(source, name, version))
        if adopt:
            library.activate(name, version)


def versions_of(library: ModelLibrary, name: str) -> list[str | None]:
    """What the history lists."""
    return [entry.version for entry in library.history(name)]


def record_of(library: ModelLibrary, name: str) -> Path:
    """The file that says which version is active."""
    return library.user_root / ".versions" / name / "active.json"


def folder_of(library: ModelLibrary, name: str, version: str) -> Path:
    """Where a trained version is."""
    return library.user_root / ".versions" / name / version


def damage(directory: Path) -> None:
    """Make a bundle unsound."""
    (directory / METADATA).write_text("{}")


def add_next(library: ModelLibrary, source: Path, name: str = NAME) -> str:
    """Add one more version, whose number is chosen while it is written."""
    return library.add_version(lambda folder: copy_as(source, folder, name, library.next_version(name))).version


def add_and_activate(library: ModelLibrary, source: Path) -> str:
    """Each step is told before it starts or when it is done, for whoever looks after the writer was killed."""
    added = add_next(library, source)
    print("added", added, flush=True)
    print("switching", added, flush=True)
    library.activate(NAME, added)
    print("active", added, flush=True)
    return added


def take_back(library: ModelLibrary, before: str, added: str) -> None:
    """Roll back from `added` to `before`, and remove `added`."""
    print("switching", before, flush=True)
    library.rollback(NAME)
    print("active", before, flush=True)
    print("removing", added, flush=True)
    library.remove(f"{NAME}@{added}")


def write_for_ever(library: ModelLibrary, source: Path) -> None:
    """Add and activate versions until killed; take back every second one."""
    while True:
        before = add_and_activate(library, source)
        take_back(library, before, add_and_activate(library, source))


def change_nothing(library: ModelLibrary) -> None:
    """Lock the library, as every change does, and give up."""
    with contextlib.suppress(ZeroDivisionError):
        library.add_version(lambda folder: 1 / 0)


class Witness:
    """What killed writers told, and whether the library still knows it."""

    def __init__(self, library: ModelLibrary) -> None:
        self.library = library
        self.told: set[str] = set()
        self.active: str | None = None

    def hear(self, lines: list[str]) -> None:
        """Take note of a writer's last words, and look at the library."""
        possible = {self.active}
        for what, version in (line.split() for line in lines):
            if what == "added":
                self.told.add(version)
            elif what == "removing":
                self.told.discard(version)
            elif what == "active":
                possible = {version}
            else:
                possible.add(version)
        entries = self.library.list()
        assert [entry.problem for entry in entries if entry.problem is not None] == []
        self.active = entries[0].version if entries else None
        assert self.active in possible, (self.active, possible)
        assert [version for version in self.told if self.library.directory(f"{NAME}@{version}") is None] == []

    def check_all(self) -> None:
        """Every version is sound, whether a writer lived to tell of it or not."""
        history = {entry.version: entry.problem for entry in self.library.history(NAME)}
        assert self.told <= set(history) and set(history.values()) == {None}, history


def fork_writer(work: Callable[[], object]) -> tuple[int, int]:
    """A process that does `work` and tells of it on the pipe: its number, and the pipe's end to read from."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            work()
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def kill_at_random(root: Path, source: Path, kills: int, seed: int) -> None:
    """Kill one writer after another in the same library at random moments."""
    library, moments = ModelLibrary([root]), random.Random(seed)
    witness = Witness(library)
    for _ in range(kills):
        child, reading = fork_writer(lambda: write_for_ever(library, source))
        with os.fdopen(reading) as pipe:
            started = time.monotonic()
            lines = [pipe.readline() for _ in range(moments.randint(1, 4))]
            a_step = (time.monotonic() - started) / len(lines)  # the moment falls anywhere in the steps that follow
            time.sleep(moments.uniform(0, 2) * a_step)
            os.kill(child, signal.SIGKILL)
            lines += pipe.readlines()
        os.waitpid(child, 0)
        witness.hear(lines)
    witness.check_all()
    print(len(witness.told), "versions told of before a kill")


def kill_at_every_step(root: Path, source: Path) -> None:
    """In one new library after another, kill the writer before its first, second, … change of what others see."""

    def work(library: ModelLibrary, step: int) -> None:
        die_at(step, library.user_root)
        before = add_and_activate(library, source)
        take_back(library, before, add_and_activate(library, source))
        print("done", "-", flush=True)

    for step in itertools.count(1):
        library = ModelLibrary([root / str(step)])
        child, reading = fork_writer(lambda library=library, step=step: work(library, step))
        with os.fdopen(reading) as pipe:
            lines = pipe.readlines()
        os.waitpid(child, 0)
        if lines and lines[-1].startswith("done"):
            break
        witness = Witness(library)
        witness.hear(lines)
        change_nothing(library)
        if library.list() or library.inactive():
            witness.check_all()
        left = [path.name for path in library.user_root.rglob(".*") if path.name != ".versions"]
        assert left == [], (step, left)
    print(step - 1, "steps")


def die_at(step: int, root: Path) -> None:
    """From now on, kill this process just before it changes something below `root`, outside a stage, for the
    `step`-th time."""
    count = itertools.count(1)

    def hook(event: str, details: tuple[object, ...]) -> None:
        if event == "open":
            changes = bool(int(details[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))  # type: ignore[call-overload]
        else:
            changes = event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove")
        if changes:
            path = str(details[1] if event == "os.rename" else details[0])
            if str(root) in path and ".adding.new-" not in path and next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    kill_at_random(Path(sys.argv[1]) / "random", Path(sys.argv[2]), int(sys.argv[3]), seed=0)
    kill_at_every_step(Path(sys.argv[1]) / "every step", Path(sys.argv[2]))
