"""What segmenting costs: a CT from file to mask, a cold start, and the network beside MONAI's."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from .memory import GIB
from .process import run_apart
from .report import render

if TYPE_CHECKING:
    from ..bundles import Bundle

__all__ = ["render", "run"]

MODEL = "liver-ct"
# What this project set itself: a whole abdominal CT on a laptop without a GPU.
AIM_SECONDS, AIM_PEAK_GIB, AIM_LONG_PEAK_GIB, AIM_IMPORT_SECONDS = 20.0, 3.0, 4.0, 4.0
_SEGMENT_FILE = f"{__name__}:segment_file"
_IMPORT = "apformer.benchmarks.process:import_seconds"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    size, slices: of the CT; long_slices: of the long one, None leaves it out. network_size: image side in the
    comparison. rounds: of the comparison; starts: fresh processes per import that is timed.
    """

    size: int = 512
    slices: int = 78
    long_slices: int | None = None
    picture_size: int = 128
    network_size: int = 256
    rounds: int = 9
    starts: int = 3


QUICK = Plan(size=48, slices=2, picture_size=32, network_size=128, rounds=1, starts=1)


def run(
    model: str = MODEL,
    device: str = "auto",
    *,
    quick: bool = False,
    long: bool = False,
    untrained: bool = False,
    rounds: int | None = None,
    say: Say = lambda message: None,
) -> dict[str, Any]:
    """Measure; the record is ready for JSON and for `render`.

    Args:
        model: name or directory of a 2D CT bundle.
        device: "auto" measures the CPU and, where there is one, the CUDA device; otherwise the one that is named.
        quick: tiny inputs, one round: shows that everything runs, its numbers mean nothing.
        long: also a CT of 600 slices.
        untrained: instead of `model`, an untrained network of the shape of liver-ct, which costs nearly the same.
        rounds: of the comparison.
        say: is told what is being measured.

    Raises:
        BundleError: the model is missing or unsound.
        ConfigError: MONAI or einops is not installed.
        DeviceError: the named device is absent.
    """
    from .comparison import BASELINE, compare, contenders
    from .machine import describe_machine

    plan = QUICK if quick else Plan(long_slices=600 if long else None)
    entrants, devices, rounds = contenders(), chosen_devices(device), rounds or plan.rounds
    record: dict[str, Any] = {"quick": quick, "machine": describe_machine()}
    with tempfile.TemporaryDirectory(prefix="apformer-benchmark-") as folder:
        bundle = save_untrained(Path(folder) / "untrained") if untrained else _find(model)
        record["model"] = {"name": bundle.name, "version": bundle.version, "untrained": untrained}
        say("a small picture in a fresh process")
        record["cold_start"] = _cold_start(bundle, plan, devices[0], Path(folder))
        record["volumes"] = _volumes(bundle, plan, devices, Path(folder), say)
    record |= {"baseline": BASELINE, "networks": []}
    for name in devices:
        say(f"networks on {name}")
        record["networks"].append(compare(entrants, size=plan.network_size, rounds=rounds, device=name))
    return record


def segment_file(image: str, model: str, output: str, device: str = "cpu") -> dict[str, Any]:
    """What `apformer segment` does, with the seconds of each step; runs in the measured process."""
    marks = [time.perf_counter()]

    def step() -> float:
        marks.append(time.perf_counter())
        return marks[-1] - marks[-2]

    from ..bundles import load_bundle
    from ..files import read_volume, write_labels
    from ..inference import Segmenter

    seconds = {"import": step()}
    bundle = load_bundle(model)
    segmenter = Segmenter(bundle, device)
    seconds["load"] = step()
    volume = read_volume(Path(image))
    seconds["read"] = step()
    result = segmenter.segment(volume)
    seconds["segment"] = step()
    write_labels(Path(output), result.labels, bundle.labels, reference=volume, provenance=None)
    seconds["write"] = step()
    return {"steps": seconds, "device": result.device, "volumes_ml": result.volumes_ml, "warnings": result.warnings}


def save_untrained(directory: Path) -> Bundle:
    """A bundle with an untrained network, prepared and shaped like liver-ct."""
    import torch

    from ..bundles import Code, Label, Preprocessing, save_bundle
    from ..networks import build_network

    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "image_size": [256, 256]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("apformer", arguments)
    anatomy, liver = Code("SCT", "123037004", "Anatomical Structure"), Code("SCT", "10200004", "Liver")
    return save_bundle(
        directory,
        name="untrained",
        version="0.0.0",
        description="An untrained network, for measuring only.",
        modality="CT",
        channels=1,
        labels=[Label(1, "Liver", (221, 130, 101), anatomy, liver)],
        preprocessing=Preprocessing(
            spatial_dims=2,
            orientation="LPS",
            spacing_mm=(1.6, 1.6),
            patch_size=(256, 256),
            intensity={"kind": "window", "lower": 0.0, "upper": 255.0},
            largest_component=True,
        ),
        network_name="apformer",
        network_arguments=arguments,
        state_dict=network.state_dict(),
        card="# Untrained\n\nFor measuring only; its masks mean nothing.\n",
        training={},
        metrics={},
        data_licence="none",
    )


def _find(model: str) -> Bundle:
    from ..bundles import ModelLibrary

    try:
        return ModelLibrary().find(model)
    except BundleError as error:
        hint = "Or add --untrained to measure with an untrained network of the same shape."
        raise BundleError(error.what, error.meaning, f"{error.remedy} {hint}") from error


def chosen_devices(device: str) -> list[str]:
    if device != "auto":
        from ..inference import choose_device

        return [str(choose_device(device))]
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _cold_start(bundle: Bundle, plan: Plan, device: str, folder: Path) -> dict[str, Any]:
    """From asking for a Python process to a mask on disk, and what imports take, each in fresh processes."""
    import numpy as np
    import SimpleITK as sitk

    from .phantom import body_phantom

    picture = folder / "picture.png"
    pixels = body_phantom(1, plan.picture_size).array[0].clip(0, 255).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(picture))
    arguments = {"image": str(picture), "model": str(bundle.directory), "device": device}
    arguments["output"] = str(folder / "mask.png")
    imports: dict[str, list[float]] = {"torch": [], "apformer.inference": []}
    starts = []
    for _ in range(plan.starts):
        for module, seconds in imports.items():
            seconds.append(run_apart(_IMPORT, {"module": module}).value)
        starts.append(run_apart(_SEGMENT_FILE, arguments))
    middle = sorted(starts, key=lambda start: start.seconds)[len(starts) // 2]
    ours, torchs = (statistics.median(imports[module]) for module in ("apformer.inference", "torch"))
    return {
        "picture": [plan.picture_size, plan.picture_size],
        "starts": plan.starts,
        "device": middle.value["device"],
        "seconds": middle.seconds,
        "steps": middle.value["steps"],
        "import_seconds": ours,
        "import_torch_seconds": torchs,
        "import_ratio": ours / torchs,
        "aim_import_seconds": AIM_IMPORT_SECONDS,
    }


def _volumes(bundle: Bundle, plan: Plan, devices: list[str], folder: Path, say: Say) -> list[dict[str, Any]]:
    """Each CT on each device, every time in a fresh process."""
    from .phantom import body_phantom, write_uncompressed

    cases = [(plan.slices, 2.5, AIM_PEAK_GIB)]
    if plan.long_slices:
        cases.append((plan.long_slices, 1.0, AIM_LONG_PEAK_GIB))
    measured = []
    for slices, slice_mm, aim_gib in cases:
        image = folder / f"ct-{slices}.nii"
        phantom = body_phantom(slices, plan.size, slice_mm)
        write_uncompressed(image, phantom)
        for device in devices:
            say(f"a CT of {plan.size} x {plan.size} x {slices} on {device}")
            arguments = {"image": str(image), "model": str(bundle.directory), "device": device}
            apart = run_apart(_SEGMENT_FILE, {**arguments, "output": str(folder / f"mask-{slices}.seg.nrrd")})
            case = {"size": [plan.size, plan.size, slices], "spacing_mm": list(phantom.spacing_ijk), **apart.value}
            case |= {"seconds": apart.seconds, "peak_gib": apart.peak_bytes / GIB, "aim_peak_gib": aim_gib}
            measured.append({**case, "aim_seconds": AIM_SECONDS if slices == plan.slices else None})
        image.unlink()
    return measured
