"""What token sparsification saves: SparseUnetr at its published ratios against its dense form, interleaved in one run.

Inference runs the networks as the Segmenter prepares them, training as the trainer does, with a full optimiser step.
Both at the published size for BTCV: 96 x 96 x 96 voxels, 1728 tokens, ViT-B, 14 classes.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..inference.ready import ready
from ..networks.sparse_unetr import SparseUnetr
from ..pruning import count_macs, count_parameters
from .machine import describe_machine
from .report import WIDTH, machine_line
from .segment import chosen_devices

__all__ = ["render", "run"]

Say = Callable[[str], None]
SMALL = {"image_size": (32, 32, 32), "hidden_size": 24, "mlp_dim": 48, "num_heads": 2, "feature_size": 2}


@dataclass(frozen=True)
class Variant:
    """A way to run the network.

    Args:
        name: in tables.
        ratio: share of the tokens that every place drops.
        written_out: attention by plain products and a softmax, as in the released code and in MONAI's UNETR, not by
            torch's fused kernel.
    """

    name: str
    ratio: float
    written_out: bool = False


DENSE = Variant("dense", 0.0)
WRITTEN_OUT = Variant("dense, attention written out", 0.0, written_out=True)
INFERENCE = (DENSE, WRITTEN_OUT, Variant("r = 0.5", 0.5), Variant("r = 0.75", 0.75), Variant("r = 0.9", 0.9))
TRAINING = (DENSE, Variant("r = 0.9", 0.9))


@dataclass
class Clock:
    """Times of one pass, round by round: on the wall, and of the processor (nothing else running counts there)."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def measure(self, run: Callable[[], object]) -> None:
        """One more round."""
        wall, processor = time.perf_counter(), time.process_time()
        run()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


def run(
    device: str = "cpu", *, quick: bool = False, rounds: int | None = None, say: Say = lambda message: None
) -> dict[str, Any]:
    """Measure; the record is ready for JSON and for `render`.

    Args:
        device: "auto" measures the CPU and, where there is one, the CUDA device; otherwise the one that is named.
        quick: a tiny network, one round: shows that everything runs, its numbers mean nothing.
        rounds: of the comparison; 5 unless told, 1 when quick.
        say: is told what is being measured.

    Raises:
        DeviceError: the named device is absent.
    """
    rounds = rounds or (1 if quick else 5)
    record: dict[str, Any] = {"quick": quick, "machine": describe_machine(), "tables": []}
    for name in chosen_devices(device):
        for kind, variants in (("inference", INFERENCE), ("training", TRAINING)):
            say(f"SparseUnetr, {kind}, on {name}")
            record["tables"].append(compare(kind, variants, SMALL if quick else {}, rounds, name))
    return record


def compare(
    kind: str, variants: Sequence[Variant], arguments: Mapping[str, Any], rounds: int, device: str
) -> dict[str, Any]:
    """One row per variant on the same image; the dense one must be among them.

    Each round runs every variant once. "seconds" is the median over rounds, "speed" the median of the round-by-round
    quotients, dense by variant; "processor_speed" the same of processor time, None on CUDA. MACs are of one inference.
    """
    start = {"inference": _forward, "training": _training_step}[kind]
    rows: dict[str, dict[str, Any]] = {}
    passes: dict[str, Callable[[], object]] = {}
    shape: tuple[int, ...] = ()
    for variant in variants:
        network = _network(variant, arguments)
        shape = (1, network.config.in_channels, *network.config.image_size)
        macs = count_macs(network, shape)  # before `ready`: a counter does not know oneDNN's convolutions
        rows[variant.name] = {
            "variant": variant.name,
            "ratio": variant.ratio,
            "parameters": count_parameters(network),
            "gmac": macs.total / 1e9,
            "gmac_without_attention": macs.without_attention / 1e9,
        }
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
        passes[variant.name] = _settled(start(network.to(device), image), variant, image.device)
    clocks = _interleaved(passes, rounds)
    for name, row in rows.items():
        row |= _speeds(clocks[name], clocks[DENSE.name], processor=device == "cpu")
    precision = "float32" if device == "cpu" else "bfloat16"
    measured = {"kind": kind, "shape": list(shape), "device": device, "precision": precision, "rounds": rounds}
    return {**measured, "baseline": DENSE.name, "rows": list(rows.values())}


def _network(variant: Variant, arguments: Mapping[str, Any]) -> SparseUnetr:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SparseUnetr(**{**arguments, "prune_ratio": variant.ratio}).eval()


def _forward(network: SparseUnetr, image: Tensor) -> Callable[[], object]:
    """One forward pass as the Segmenter does it."""
    prepared = ready(network, len(image.shape) - 2)

    @torch.inference_mode()
    def run() -> None:
        prepared(image)

    return run


def _training_step(network: SparseUnetr, image: Tensor) -> Callable[[], object]:
    """Forward, backward and optimiser step as the trainer does them."""
    trained: nn.Module = network.train().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-6)
    labels = torch.randint(network.config.out_channels, (1, *image.shape[2:]), device=image.device)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(trained(image).float(), labels).backward()
        optimiser.step()

    return run


def _settled(run: Callable[[], object], variant: Variant, device: torch.device) -> Callable[[], object]:
    """The pass with the variant's attention, in bfloat16 on CUDA, finished when the call returns."""

    def settled() -> None:
        with ExitStack() as stack:
            if variant.written_out:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if device.type == "cuda":
                stack.enter_context(torch.autocast("cuda", torch.bfloat16))
            run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    return settled


def _interleaved(passes: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Clock]:
    """One round that does not count (caches, kernel choice), then all passes in turn."""
    for run in passes.values():
        run()
    clocks = {name: Clock() for name in passes}
    for _ in range(rounds):
        for name, run in passes.items():
            clocks[name].measure(run)
    return clocks


def _speeds(own: Clock, base: Clock, processor: bool) -> dict[str, Any]:
    speeds = [dense / time for dense, time in zip(base.wall, own.wall, strict=True)]
    spent = [dense / time for dense, time in zip(base.processor, own.processor, strict=True)]
    return {
        "seconds": statistics.median(own.wall),
        "speed": statistics.median(speeds),
        "speed_range": [min(speeds), max(speeds)],
        "processor_seconds": statistics.median(own.processor) if processor else None,
        "processor_speed": statistics.median(spent) if processor else None,
    }


def render(record: dict[str, Any]) -> str:
    """A record of `run` as plain tables."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(machine_line(record["machine"]))
    if record["quick"]:
        console.print("NOTE: a quick run of a tiny network; it shows that everything works, its numbers mean nothing.")
    if record["machine"]["busy"]:
        console.print("NOTE: other programs were running; the ratios of processor time are the ones to read.")
    for table in record["tables"]:
        console.print(_table(table))
    return stream.getvalue()


def _table(table: dict[str, Any]) -> Any:
    from rich.table import Table

    size = " x ".join(str(n) for n in table["shape"])
    where = f"{table['device']}, {table['precision']}, interleaved rounds: {table['rounds']}"
    drawn = Table(title=f"SparseUnetr, {table['kind']}, {size}, {where}", title_justify="left")
    headings = ("variant", "parameters", "GMAC", "GMAC without q.k and A.v", "s", "times as fast as dense (range)")
    for heading in (*headings, "by processor time"):
        drawn.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in table["rows"]:
        low, high = row["speed_range"]
        drawn.add_row(
            row["variant"],
            f"{row['parameters']:,}",
            f"{row['gmac']:.1f}",
            f"{row['gmac_without_attention']:.1f}",
            f"{row['seconds']:.2f}",
            f"{row['speed']:.2f} ({low:.2f} to {high:.2f})",
            "-" if row["processor_speed"] is None else f"{row['processor_speed']:.2f}",
        )
    return drawn
