"""What the crash tests work on: a training that stops at a chosen moment, and one that is killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from apformer.bundles import Bundle, ModelLibrary, load_bundle
from apformer.datasets import SiteDataset
from apformer.datasets.identity import file_hash
from apformer.finetuning import Outcome, finetune, folder, outcome, rounds
from dataset_samples import assert_sound
from finetune_samples import a_request

TINY = {"depth": 1, "heads": 1, "channels": [2, 4, 4, 4], "head_dim": 4, "ffn_dim": 4}  # of a base; it learns little


@contextmanager
def plain_pictures() -> Iterator[None]:
    """Nothing is drawn: pictures and pages take most of the time of a small training and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "draw_overlay", _draw_nothing)
        patch.setattr(outcome, "_draw_worst", lambda setup, folder, found, check: check() or [])
        patch.setattr(outcome, "write_page", lambda report, folder, path: path.write_text("page", encoding="utf-8"))
        yield


def _draw_nothing(picture: object, truth: object, found: object, labels: object, path: Path, title: str) -> None:
    path.write_bytes(b"picture")


class Stopped(Exception):  # noqa: N818  nothing went wrong
    """What `check` raises when the user cancels."""


class Stopper:
    """Stops a training at the `calls`-th check after `moment` was told; "2: epoch" is one of the second training.

    Use it as `on_event` and its `check` as `check`.
    """

    def __init__(self, moment: str = "never", calls: int = 1) -> None:
        self.moment, self.left, self.fold, self.waiting = moment, calls, 1, True
        self.told: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.told.append(event)
        self.fold = event.get("fold", self.fold)
        if self.moment in f"{self.fold}: {event.get('message', event['event'])}":
            self.waiting = False

    def check(self) -> None:
        if not self.waiting:
            self.left -= 1
            if self.left <= 0:
                raise Stopped


def weights_of(bundle: Bundle) -> dict[str, torch.Tensor]:
    return bundle.build_network().state_dict()


def assert_same_weights(one: Bundle, other: Bundle) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []


def plan_of(site: SiteDataset, name: str) -> Path:
    return site.root / folder.TRAININGS / name / folder.PLAN


def kill_trainings(root: Path, models: Path, name: str, kills: int) -> list[str]:
    """Kill one process that fine-tunes after another at random moments; each goes on where the one before was killed.

    The data set and the library must be sound each time, and no version may be lost or changed once it is there.
    Processes are forked from this one, which has loaded all modules and computed nothing, so that each starts at once.

    Returns: the versions that finished trainings told.
    """
    moments, site = random.Random(name), SiteDataset.open(root)
    versions = models / ".versions" / name
    finished: list[str] = []
    kept: dict[Path, str] = {}
    while kills > 0:
        with _training(site, models, name) as (child, pipe):
            started = time.monotonic()
            lines = [pipe.readline() for _ in range(moments.randint(1, 10))]
            a_step = (time.monotonic() - started) / len(lines)  # the moment falls anywhere in the steps that follow
            time.sleep(moments.uniform(0, 2) * a_step)
            os.kill(child, signal.SIGKILL)
            lines += pipe.readlines()
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        kills -= killed
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        finished += [line["version"] for line in told if "version" in line]
        assert killed or "version" in told[-1], f"a training failed by itself: {told[-3:]}"
        assert_sound(SiteDataset.open(root))
        now = {path: file_hash(path) for path in versions.glob("[0-9]*/**/*") if path.is_file()}
        assert kept.items() <= now.items(), "a version that was there is lost or changed"
        kept = now
        assert {path.name for path in versions.glob("[0-9]*")} >= set(finished)
        assert [entry.problem for entry in ModelLibrary([models]).list() if entry.problem] == []
    return finished


@contextmanager
def _training(site: SiteDataset, models: Path, name: str) -> Iterator[tuple[int, Any]]:
    """A process that fine-tunes, and a pipe of what it tells, one JSON object a line."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(writing, 1)
            train_on(site, ModelLibrary([models]), name, lambda event: print(json.dumps(event), flush=True))
            status = 0
        except BaseException as error:  # noqa: BLE001  told through the pipe
            print(json.dumps({"error": repr(error)}), flush=True)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        yield child, pipe


def train_on(site: SiteDataset, library: ModelLibrary, name: str, tell: Any) -> Outcome:
    """Begin the training of `name`, or go on with it; the last thing told is the version that it gave."""
    resume = plan_of(site, name).exists()
    done = finetune(a_request(site, name=name, adopt="always", resume=resume), library=library, on_event=tell)
    tell({"version": done.bundle.version})
    return done


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, home = Path(sys.argv[1]), Path(sys.argv[2])
    ModelLibrary([home]).find("ball").build_network()  # loads what modules import late, once for all processes
    os.fsync = lambda descriptor: None  # slow; a kill loses nothing that was written, only a power cut does
    with plain_pictures():
        ended = kill_trainings(place, home, sys.argv[3], int(sys.argv[4]))
    for path in sorted((home / ".versions").glob("*/[0-9]*")):
        load_bundle(path)
    print(json.dumps(ended))
