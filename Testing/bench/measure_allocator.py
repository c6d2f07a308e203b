"""What keeping freed memory is worth: `.venv/bin/python Testing/bench/measure_allocator.py [--image CT --model NAME]`.

Takes training steps of a network in fresh processes, as it is set up by `apformer.allocator` and as the system's C
library does by itself, in turns, and prints JSON: seconds and page faults of a step, the share of processor time that
the kernel took, the most memory held, and what is still held after it was given back. With an image, the same for
segmenting it, a piece at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "APFormerSlicer"))

from apformer import allocator
from apformer.jobs.processes import child_environment
from apformer.jobs.vitals import Vitals

CONFIG = Path(__file__).resolve().parents[2] / "Configs" / "hippocampus-mr.toml"  # three dimensions
SIZE, BATCH = (64, 96, 64), 2


def training_step(config_file: Path, size: tuple[int, ...], batch: int) -> Callable[[], None]:
    """One step of the configuration's network on noise: forward, loss, backward, optimiser."""
    import torch
    from apformer.networks import build_network
    from apformer.training.config import read_config
    from apformer.training.losses import APFormerLoss

    config = read_config(config_file)
    torch.manual_seed(0)
    network = build_network(config.network, config.network_arguments).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loss = APFormerLoss(config.losses)
    image = torch.rand(batch, config.channels, *size)
    target = (image[:, :1] > 0.5).long()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(*network(image, auxiliaries=True), target, 0)["total"].backward()
        optimiser.step()

    return step


def segmentation(image: Path, model: str) -> Callable[[], None]:
    """The image segmented on the CPU."""
    from apformer.bundles import ModelLibrary
    from apformer.files import read_volume
    from apformer.inference import Segmenter

    segmenter, volume = Segmenter(ModelLibrary().find(model), "cpu"), read_volume(image)

    def segment() -> None:
        segmenter.segment(volume)

    return segment


def repeated(make: Callable[[], Callable[[], None]], times: int) -> dict[str, float]:
    """Figures of `times` runs after a first one, in a thread, as the worker runs its jobs."""
    rows: list[tuple[float, float, float, float]] = []
    figures: dict[str, float] = {}

    def run() -> None:
        work = make()
        work()
        for _ in range(times):
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            work()
            took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
            user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
            rows.append((took, after.ru_minflt - before.ru_minflt, user, system))
        figures["held_mb"] = held()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    seconds, faults, user, system = (statistics.median(column) for column in zip(*rows, strict=True))
    allocator.give_back()
    return {
        "seconds": round(seconds, 3),
        "processor_s": round(user + system, 3),  # tells more than the clock where other programs run
        "page_faults": round(faults),
        "kernel_share": round(system / max(1e-9, user + system), 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **figures,
        "given_back_mb": held(),
    }


def held() -> int:
    """Resident memory of this process, MB."""
    return (Vitals.now().used_bytes or 0) >> 20


def apart(words: list[str], keep: bool) -> dict[str, Any]:
    """The figures of this program with `words`, in a process of its own; `keep`: set up as a worker is."""
    environment = child_environment()
    if not keep:
        environment = {name: value for name, value in environment.items() if name not in allocator.ENVIRONMENT}
    done = subprocess.run([sys.executable, __file__, "--child", *words], env=environment, stdout=subprocess.PIPE)
    done.check_returncode()
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--image", type=Path)
    parser.add_argument("--model", default="liver-ct")
    parser.add_argument("--times", type=int, default=5, help="steps, or segmentations, per process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.image:
            figures = repeated(lambda: segmentation(options.image, options.model), options.times)
        else:
            figures = repeated(lambda: training_step(CONFIG, SIZE, BATCH), options.times)
        print(json.dumps(figures))
        return
    words = ["--times", str(options.times)]
    if options.image:
        words += ["--image", str(options.image.resolve()), "--model", options.model]
    rows: dict[str, list[dict[str, Any]]] = {"by itself": [], "kept": []}
    for _ in range(options.rounds):
        for name, found in rows.items():
            found.append(apart(words, keep=name == "kept"))
    print(json.dumps({"cores": os.cpu_count(), **rows}, indent=1))


if __name__ == "__main__":
    main()
