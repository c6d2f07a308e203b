"""What a trained model prunes by itself on labelled cases: kept shares, Dice and time, with its gates on and off."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bundles import Bundle, ModelLibrary
from ..errors import BundleError, ConfigError
from ..inference import Segmenter
from ..networks.apformer import APFormer
from ..training.augment import fit
from ..training.cases import Case, PreparedCases, read_dataset
from ..training.config import Split
from ..training.pruned import five_numbers

GATINGS = {"dense": "off", "pruned": "hard"}


class _Pass(NamedTuple):
    """One image through the network: labels (*size), shares of the tokens and of the dense transformer's MACs."""

    predicted: Tensor
    kept: float
    macs: float
    seconds: float


class Overlap:
    """Voxels per label over all images: in both masks, and in one plus in the other."""

    def __init__(self, bundle: Bundle) -> None:
        self._labels = bundle.labels
        self._both, self._sizes, self._references = torch.zeros(3, 256, dtype=torch.long)

    def add(self, predicted: Tensor, reference: Tensor) -> None:
        """Label values uint8 of one shape."""
        self._both += predicted[predicted == reference].flatten().bincount(minlength=256)
        there = reference.flatten().bincount(minlength=256)
        self._sizes += predicted.flatten().bincount(minlength=256) + there
        self._references += there

    def dice(self) -> dict[str, float]:
        """Pooled over all images, by label name; a label that no reference has is judged by nobody and left out."""
        return {
            label.name: 2 * int(self._both[label.value]) / int(self._sizes[label.value])
            for label in self._labels
            if self._references[label.value]
        }


def measure(model: str, dataset: Path, device: str, most_images: int | None = None) -> dict[str, Any]:
    """The model on its validation cases, image by image, with gates on and off in turns.

    Each image (a slice of a 2D model, a volume of a 3D one) is fitted to the patch size and run whole, and compared on
    the model's own grid, as validation during training does. "Dense" is the same weights with the gates ignored.

    Args:
        model: name or directory of a bundle.
        dataset: a folder in Medical Segmentation Decathlon layout.
        device: where it runs; bfloat16 on CUDA, float32 elsewhere.
        most_images: evenly over the cases; None takes all.

    Raises:
        BundleError: the model is missing, unsound, or does not prune.
        ConfigError: the data set cannot be used.
    """
    bundle = ModelLibrary().find(model)
    network = pruned_network(bundle, device)
    overlap = {name: Overlap(bundle) for name in GATINGS}
    passes: dict[str, list[_Pass]] = {name: [] for name in GATINGS}
    with held_out_images(bundle, dataset, most_images) as images:
        for name in GATINGS:
            run_image(network, bundle, images.prepared.item(0)[0], name, device)  # warms up, does not count
        for index in images.chosen:
            image, label = images.prepared.item(index)
            for name in GATINGS:
                done = run_image(network, bundle, image, name, device)
                overlap[name].add(done.predicted, label[0])
                passes[name].append(done._replace(predicted=done.predicted[:0]))  # the mask is no longer needed
    return {
        "model": {"name": bundle.name, "version": bundle.version},
        "device": device,
        "precision": "bfloat16" if device.startswith("cuda") else "float32",
        "cases": images.cases,
        "held_out": images.held_out,
        "images": len(images.chosen),
        "kept_tokens": five_numbers([one.kept for one in passes["pruned"]]),
        "transformer_macs": five_numbers(
            [one.macs / whole.macs for one, whole in zip(passes["pruned"], passes["dense"], strict=True)]
        ),
        "dice": {name: counts.dice() for name, counts in overlap.items()},
        "seconds": {name: statistics.median(one.seconds for one in done) for name, done in passes.items()},
        "ratio": statistics.median(
            one.seconds / whole.seconds for one, whole in zip(passes["pruned"], passes["dense"], strict=True)
        ),
    }


def pruned_network(bundle: Bundle, device: str) -> APFormer:
    segmenter = Segmenter(bundle, device)
    network = segmenter.network.to(segmenter.device)
    if not isinstance(network, APFormer) or network.query_gate is None:
        raise BundleError(
            f"The model {bundle.name} {bundle.version} does not prune.",
            "There is nothing to compare.",
            "Name a model that was trained with prune_queries, or leave --bundle and --data out.",
        )
    return network


class Images(NamedTuple):
    """Items of `prepared` to run, of so many cases; `held_out`: the model names them as its validation cases."""

    prepared: PreparedCases
    chosen: range
    cases: int
    held_out: bool


@contextmanager
def held_out_images(bundle: Bundle, dataset: Path, most_images: int | None) -> Iterator[Images]:
    """The model's validation images, prepared in a temporary folder; evenly chosen if there are more than asked for."""
    cases, held_out = _held_out_cases(bundle, dataset)
    with tempfile.TemporaryDirectory(prefix="apformer-benchmark-") as folder:
        prepared = PreparedCases(cases, Path(folder), bundle.preprocessing)
        prepared.build()
        chosen = range(0, len(prepared), -(-len(prepared) // (most_images or len(prepared))))
        yield Images(prepared, chosen, len(cases), held_out)


def _held_out_cases(bundle: Bundle, dataset: Path) -> tuple[list[Case], bool]:
    """The validation cases that the bundle names, and True; all cases and False when it names none."""
    cases = read_dataset(dataset, Split(r"(?P<number>\d+)"))
    patients = bundle.metadata.get("metrics", {}).get("patients") or []
    # A patient's name may be the beginning of another's: liver_1 and liver_10.
    named = [re.escape(patient) + (r"(?!\d)" if patient[-1:].isdigit() else "") for patient in patients]
    if not named:
        return cases, False
    chosen = [case for case in cases if re.search(rf"(?<![A-Za-z0-9])({'|'.join(named)})", case.name)]
    if not chosen:
        raise ConfigError(
            f"{dataset} holds none of the validation patients of {bundle.name} {bundle.version}.",
            "Dice on cases that a model was trained on says little.",
            "Point --data to the data set that the model was trained and validated on.",
        )
    return chosen, True


@torch.inference_mode()
def run_image(network: APFormer, bundle: Bundle, image: Tensor, name: str, device: str) -> _Pass:
    """One image (C, *size) with its gates as `name` says."""
    network.gating = GATINGS[name]
    shape = tuple(image.shape[1:])
    patch = [max(size, least) for size, least in zip(shape, bundle.preprocessing.patch_size, strict=True)]
    fitted = fit(image, patch)[None].to(device)
    started = time.perf_counter()
    with torch.autocast(fitted.device.type, torch.bfloat16, enabled=fitted.device.type == "cuda"):
        logits, work = network(fitted, auxiliaries=True)
    kept, macs = float(work.kept.float().mean()), float(work.transformer_macs[0])  # waits for the device
    seconds = time.perf_counter() - started
    values = torch.tensor([0, *(label.value for label in bundle.labels)], dtype=torch.uint8)
    predicted = values[logits[0].float().argmax(0).cpu()]
    return _Pass(fit(predicted[None].float(), shape)[0].to(torch.uint8), kept, macs, seconds)
