"""Spoils files and has them read, many times: what was refused, what was accepted, and what went wrong."""

from __future__ import annotations

import json
import queue
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mutations import MUTATIONS, SECRET, SECRET_NAME
from seeds import Seed, all_seeds

BUDGET = 48 << 20  # bytes that one image may take
_PATIENCE_S = 20.0
_READER = Path(__file__).with_name("reader.py")
OUTCOMES = ("refused", "equal", "told", "changed", "uncaught", "outside", "crashed", "hung")


@dataclass
class Report:
    """Counts by mutation and outcome, and examples of what must not be."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in MUTATIONS})
    examples: list[str] = field(default_factory=list)
    most_taken: int = 0

    @property
    def tried(self) -> int:
        return sum(sum(counter.values()) for counter in self.counts.values())

    def of(self, *outcomes: str) -> int:
        return sum(counter[outcome] for counter in self.counts.values() for outcome in outcomes)

    def silent(self) -> int:
        """Packed voxels that changed without a word."""
        return self.counts["bit of packed voxels"]["changed"]

    def table(self) -> str:
        rows = [f"{'':24}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES)]
        for name, counter in self.counts.items():
            rows.append(f"{name:24}" + "".join(f"{counter[outcome]:10}" for outcome in OUTCOMES))
        rows.append(f"{self.tried} inputs; at most {self.most_taken / 2**20:.0f} MiB of {BUDGET / 2**20:.0f} taken")
        return "\n".join([*rows, *self.examples[:40]])


class Reader:
    """The reading process; started again when an input ended it."""

    def __init__(self, reference: Path) -> None:
        self._reference = reference
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def ask(self, path: Path, seed: str) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"path": str(path), "seed": seed}) + "\n")
            process.stdin.flush()
            line = self._lines.get(timeout=_PATIENCE_S)
        except (queue.Empty, BrokenPipeError):
            self.close()
            return {"outcome": "hung"}
        if not line:
            status = process.wait()
            self.close()
            return {"outcome": "crashed", "words": f"status {status}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        self._process = process = subprocess.Popen(
            [sys.executable, str(_READER), str(self._reference), str(BUDGET)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip
        self._lines = lines = queue.Queue()

        def hear() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=hear, daemon=True).start()
        assert lines.get(timeout=60), "the reader did not start"
        return process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def fuzz(folder: Path, count: int, seed: int = 0) -> Report:
    """Try `count` spoiled files, drawn from `seed`; all formats and mutations in turn."""
    made = folder / "seeds"
    made.mkdir()
    (folder / SECRET_NAME).write_bytes(SECRET)
    seeds = all_seeds(made)
    reader = Reader(_reference(folder, seeds))
    report = Report()
    try:
        _warm_up(reader, folder, seeds)
        for number in range(count):
            draw = random.Random(f"{seed}-{number}")
            one = seeds[number % len(seeds)]
            names = [name for name in MUTATIONS if one.packed or name != "bit of packed voxels"]
            name = names[number // len(seeds) % len(names)]
            answer = _try(reader, folder, one, MUTATIONS[name](one, draw))
            outcome = answer["outcome"]
            report.counts[name][outcome] += 1
            taken = answer.get("taken", 0)
            report.most_taken = max(report.most_taken, taken)
            silent = name == "bit of packed voxels" and outcome == "changed"
            if outcome in ("uncaught", "outside", "crashed", "hung") or silent or taken > BUDGET:
                words = f"{taken / 2**20:.0f} MiB: {answer.get('words', '')}"
                report.examples.append(f"{seed}-{number} {one.name}, {name}: {outcome}, {words}")
    finally:
        reader.close()
    return report


def spoiled(folder: Path, number: int, seed: int = 0) -> Path:
    """One input of a report again, to look at: the number is in its example."""
    made = folder / "seeds"
    made.mkdir()
    seeds = all_seeds(made)
    one = seeds[number % len(seeds)]
    names = [name for name in MUTATIONS if one.packed or name != "bit of packed voxels"]
    content = MUTATIONS[names[number // len(seeds) % len(names)]](one, random.Random(f"{seed}-{number}"))
    return _place(folder / "input", one, content)


def _try(reader: Reader, folder: Path, one: Seed, content: bytes) -> dict[str, Any]:
    inner = folder / "input"
    shutil.rmtree(inner, ignore_errors=True)
    return reader.ask(_place(inner, one, content), one.name)


def _place(inner: Path, one: Seed, content: bytes) -> Path:
    inner.mkdir()
    for name, other in one.files:
        (inner / name).write_bytes(other)
    (inner / one.name).write_bytes(content)
    return inner if one.is_folder else inner / one.name


def _reference(folder: Path, seeds: list[Seed]) -> Path:
    """What the good files hold."""
    from apformer.files import read_volume

    arrays = {}
    for one in seeds:
        inner = folder / "good"
        volume = read_volume(_place(inner, one, one.content))
        arrays[f"{one.name}/array"], arrays[f"{one.name}/matrix"] = volume.array, volume.ijk_to_ras
        shutil.rmtree(inner)
    np.savez(folder / "reference.npz", **arrays)
    return folder / "reference.npz"


def _warm_up(reader: Reader, folder: Path, seeds: list[Seed]) -> None:
    """Read every good file: libraries are loaded, and the fuzzer is known to have good ones."""
    for one in seeds:
        answer = _try(reader, folder, one, one.content)
        assert answer["outcome"] == "equal", (one.name, answer)
