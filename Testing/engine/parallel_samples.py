"""What the parallel tests work on: processes that train together, as `torchrun` starts them, and what each of them did.

    parallel_samples.py SITE MODELS OUTPUT SCENARIO

Started without RANK in the environment, it forks the two processes itself: they begin at once, and nobody but they
themselves notices when one of them fails.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from apformer.bundles import ModelLibrary
from apformer.datasets import SiteDataset
from apformer.finetuning import finetune, recipe
from apformer.training.loop import Trainer
from crash_samples import Stopper, plain_pictures
from finetune_samples import a_request
from torch import Tensor, nn

PROCESSES = 2
LONGEST_SECONDS = 300  # after which processes that have not ended are taken to hang
QUICK = 0.02  # learning rate: few steps have to be enough
SCENARIOS: dict[str, dict[str, Any]] = {
    "together": {"steps": 36},
    "pruned": {"steps": 18, "budget": "keep=0.5"},
    "stopped": {"steps": 12},
    "resumed": {"steps": 12, "name": "stopped", "resume": True},
    "whole": {"steps": 12},
    "left": {"steps": 12},
    "refused": {"steps": 12, "labels": ("Spleen",)},
}


def train(site: Path, models: Path, output: Path, scenario: str, rank: int) -> None:
    """One of the processes: train, and leave in `output` what it saw. The first is stopped in "stopped", the other in
    "left", both in the second stretch."""
    stopper = Stopper("epoch", 2) if (scenario, rank) in (("stopped", 0), ("left", 1)) else Stopper()
    if rank:
        stopper.waiting = False  # it is told nothing
        checks = 8 + 8 + 3  # of files, of prepared cases, of steps of the first stretch
        stopper.left = checks + 2 if scenario == "left" else 10**9
    recipe.PEAK_RATE = QUICK
    seen: dict[str, Any] = {}
    observe(seen)
    request = a_request(SiteDataset.open(site), **{"name": scenario, **SCENARIOS[scenario]})
    library = ModelLibrary([models])
    with plain_pictures():
        outcome = finetune(request, library=library, on_event=stopper, check=stopper.check)
    seen |= {"version": outcome.bundle.version, "dice": dices(outcome.summary), "told": len(stopper.told)}
    torch.save(seen, output / f"{scenario}-{rank}.pt")


def dices(summary: dict[str, Any]) -> dict[str, float]:
    return {name: entry["mean_dice"] for name, entry in summary["after"]["labels"].items()}


def observe(seen: dict[str, Any]) -> None:
    """Have trainings leave in `seen` their last weights, and of the first step the batch, the gradient of this
    process alone, and the one that all processes use."""
    step, run, clip = Trainer.train_step, Trainer.run, nn.utils.clip_grad_norm_
    gradients: list[dict[str, Tensor]] = []

    def observed_step(self: Trainer, stage: Any, batch: dict[str, Tensor], rate: float, *more: Any) -> dict[str, float]:
        if "batch" not in seen:
            names = dict(self.network.named_parameters())

            def keep(parameters: Any, limit: float) -> Tensor:
                gradients.append({n: p.grad.clone() for n, p in names.items() if p.grad is not None})
                return torch.tensor(float("nan"))  # nothing is learned from this step

            joined, noise = self.joined, torch.get_rng_state()
            nn.utils.clip_grad_norm_ = keep
            for network in (self.network, joined):
                self.joined = network
                torch.set_rng_state(noise)
                step(self, stage, batch, rate, *more)
            nn.utils.clip_grad_norm_ = clip
            torch.set_rng_state(noise)
            self.skipped = 0
            seen["batch"], seen["alone"], seen["joined"] = batch["image"], *gradients
        return step(self, stage, batch, rate, *more)

    def observed_run(self: Trainer) -> dict[str, Tensor]:
        weights = run(self)
        seen["weights"] = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        return weights

    Trainer.train_step, Trainer.run = observed_step, observed_run  # type: ignore[method-assign]


def fork_all(work: Callable[[int], None]) -> list[str | None]:
    """Run `work` in processes that find each other as those of `torchrun` do.

    Returns: for each the error that it ended with, None for none; "hangs" when it did not end.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(PROCESSES):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            error = ""
            try:
                work(rank)
            except BaseException as caught:  # noqa: BLE001  told to the parent
                error = repr(caught)
                traceback.print_exc()
            os.write(writing, error.encode()[:4000])
            os._exit(0)
        os.close(writing)
        children.append((child, reading))
    ends = [threading.Timer(LONGEST_SECONDS, os.kill, (child, signal.SIGKILL)) for child, _ in children]
    for timer in ends:
        timer.start()
    errors: list[str | None] = []
    for (child, reading), timer in zip(children, ends, strict=True):
        with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
            said = pipe.read()
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        timer.cancel()
        errors.append("hangs" if killed else said or None)
    return errors


if __name__ == "__main__":
    torch.set_num_threads(1)
    site, models, output = map(Path, sys.argv[1:4])
    if "RANK" in os.environ:
        train(site, models, output, sys.argv[4], int(os.environ["RANK"]))
    else:
        ModelLibrary([models]).find("ball").build_network()  # loads what modules import late
        ended = {
            each: fork_all(lambda rank, each=each: train(site, models, output, each, rank)) for each in sys.argv[4:]
        }
        print(json.dumps(ended))
