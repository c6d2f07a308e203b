"""APFormer beside MONAI's networks: parameters, multiply-accumulates and, interleaved in one run, seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..networks import build_network
from ..pruning import count_macs, count_parameters

BASELINE = "MONAI UNet"
CLASSES = 2


@dataclass(frozen=True)
class Contender:
    """A 2D network of one input channel and two classes; `settings` says which of its many sizes is meant."""

    name: str
    settings: str
    build: Callable[[int], nn.Module]  # from the image size


def contenders() -> list[Contender]:
    """APFormer as published, and MONAI's networks at their constructors' defaults, or the usual values without one.

    Raises:
        ConfigError: MONAI is not installed, or einops, without which its transformers cannot be built.
    """
    try:
        import einops  # noqa: F401
        from monai.networks.nets import UNETR, DynUNet, SwinUNETR, UNet
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed.",
            "MONAI's networks are what APFormer is compared with.",
            "Install both packages: pip install monai einops",
        ) from error

    def apformer(size: int) -> nn.Module:
        return build_network("apformer", {"in_channels": 1, "out_channels": CLASSES, "image_size": (size, size)})

    def unet(size: int) -> nn.Module:
        return UNet(2, 1, CLASSES, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2, norm="batch")

    def dynunet(size: int) -> nn.Module:
        strides = [1, *[2] * 6]
        return DynUNet(2, 1, CLASSES, kernel_size=[3] * 7, strides=strides, upsample_kernel_size=strides[1:])

    def unetr(size: int) -> nn.Module:
        return UNETR(1, CLASSES, img_size=size, spatial_dims=2)

    def swin_unetr(size: int) -> nn.Module:
        return SwinUNETR(1, CLASSES, spatial_dims=2)

    return [
        Contender("APFormer", "published: 16-32-64-128, 4 layers of 6 heads x 128", apformer),
        Contender(BASELINE, "channels 16-32-64-128-256, 2 residual units, batch norm (MONAI tutorials)", unet),
        Contender("MONAI DynUNet", "as nnU-Net plans 256 x 256: 7 levels, 3 x 3, 32 to 512 filters", dynunet),
        Contender("MONAI UNETR", "defaults: ViT-B/16, feature size 16", unetr),
        Contender("MONAI SwinUNETR", "defaults: feature size 24, depths 2-2-2-2, window 7", swin_unetr),
    ]


def compare(entrants: Sequence[Contender], *, size: int = 256, rounds: int = 9, device: str = "cpu") -> dict[str, Any]:
    """One row per network, on the same 1 x 1 x `size` x `size` input; `BASELINE` must be among them.

    Each round runs every network once, so a slow moment of the machine meets all alike. "seconds" is the median over
    rounds, "ratio" the median of the round-by-round ratios to the baseline. On CUDA in bfloat16, else float32.
    """
    image = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    rows: dict[str, dict[str, Any]] = {}
    passes: dict[str, Callable[[], object]] = {}
    for entrant in entrants:
        network = entrant.build(size).eval()
        macs = count_macs(network, image.shape)
        rows[entrant.name] = {
            "network": entrant.name,
            "settings": entrant.settings,
            "parameters": count_parameters(network),
            "gmac": macs.total / 1e9,
            "gmac_without_attention": macs.without_attention / 1e9,
        }
        passes[entrant.name] = _forward(network.to(device), image)
    seconds = interleaved_seconds(passes, rounds)
    for name, row in rows.items():
        ratios = [own / base for own, base in zip(seconds[name], seconds[BASELINE], strict=True)]
        row |= {"seconds": statistics.median(seconds[name]), "ratio": statistics.median(ratios)}
        row |= {"ratio_range": [min(ratios), max(ratios)]}
    precision = "bfloat16" if image.device.type == "cuda" else "float32"
    return {"device": device, "precision": precision, "size": size, "rounds": rounds, "rows": list(rows.values())}


def interleaved_seconds(passes: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each pass in each round, after one round that does not count (caches, kernel choice)."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, run in passes.items():
            started = time.perf_counter()
            run()
            if number > 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _forward(network: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """One forward pass as inference does it, finished when the call returns."""
    device = image.device.type

    @torch.inference_mode()
    def run() -> None:
        precision = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()
        with precision:
            network(image)
        if device != "cpu":
            torch.accelerator.synchronize(image.device)

    return run
