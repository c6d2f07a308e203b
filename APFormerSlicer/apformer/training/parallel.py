"""The same training in several processes, one per GPU or host, started by `torchrun`; alone when it was not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError, DeviceError

# The others wait while the first process measures, which takes hours for many large cases on a CPU. When one process
# fails, `torchrun` ends the rest at once.
LONGEST_WAIT = timedelta(days=2)

T = TypeVar("T")


class Processes:
    """Who takes part in this training. The first process measures and writes; all of them train.

    Attributes:
        rank: number of this process; 0 is the first. size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def from_environment(cls) -> Processes:
        """Those that `torchrun` started, joined with NCCL on CUDA and gloo elsewhere; else this one alone.

        Raises:
            ConfigError: they cannot be joined.
        """
        size = os.environ.get("WORLD_SIZE", "1")
        if size == "1":
            return cls()
        if not dist.is_available():
            raise _apart("this PyTorch cannot train in several processes")
        if not dist.is_initialized():
            nccl = torch.cuda.is_available() and dist.is_nccl_available()
            try:  # what is no tensor goes by gloo: waiting keeps no GPU busy, and training on CPUs works beside GPUs
                dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=LONGEST_WAIT)
            except (ValueError, RuntimeError) as error:
                raise _apart(str(error).partition("\n")[0]) from error
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process: each takes the CUDA device of its number on its host.

        Raises:
            DeviceError: there are fewer of them than processes.
        """
        if self.size == 1 or chosen.type != "cuda":
            return chosen
        number, count = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if number >= count:
            raise DeviceError(
                f"Process {number + 1} on this computer has no CUDA device of its own: there are {count}.",
                "Two processes on one device would only slow each other down.",
                f"Start {count} processes, or train on the CPU.",
            )
        torch.cuda.set_device(number)  # NCCL takes the current device
        return torch.device("cuda", number)

    def share_of(self, batch: Sequence[T]) -> list[T]:
        """This process's part of a batch. All parts are equally long, so that the mean of means is the mean."""
        part = max(1, len(batch) // self.size)
        return [batch[(self.rank * part + n) % len(batch)] for n in range(part)]

    def joined(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over all processes.

        To be called again when parameters were frozen or thawed: the wrapper remembers which ones learn.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(
            network,
            device_ids=[device.index] if device.type == "cuda" else None,
            # Gates and the prune head are outside the graph of some stages.
            find_unused_parameters=True,
        )

    def from_first(self, value: T) -> T:
        """What the first process has; plain data or tensors on the CPU."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def _apart(reason: str) -> ConfigError:
    return ConfigError(
        f"The processes of this training could not be joined: {reason}.",
        "WORLD_SIZE says that there are several, and each alone would train a model of its own.",
        "Start them with torchrun, or unset WORLD_SIZE to train in one process.",
    )
