"""`prune_attention` on somebody else's network, really trained: MONAI's UNETR, plain, then pruned, measured in turns.

Everything happens in one run: train a network; train it on as it is, and a copy of it with gates, for equally many
epochs; measure Dice and time of the two, image by image in turns, beside the fastest that pruning could ever be; take
the gates out again.
"""

from __future__ import annotations

import copy
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..files import atomic_path
from ..metrics import Overlap, over_cases
from ..pruning import count_macs, count_parameters
from ..pruning.budget import Budget, dense_macs
from ..pruning.plugin import PrunedNetwork, prune_attention
from ..training.augment import fit
from ..training.cases import PreparedCases, read_dataset, split_cases
from ..training.config import LossWeights, Pruning, Stage, TrainingConfig
from ..training.pruned import five_numbers
from .machine import describe_machine
from .plugin_report import render
from .plugin_training import train

__all__ = ["Recipe", "render", "run"]

PATCH = 16  # of a UNETR, by construction
# The widths of ViT-S/16 (Touvron et al., "Training data-efficient image transformers", ICML 2021). UNETR's default is
# ViT-B/16, four times the parameters, which a processor does not train in half an hour.
WIDTHS = {"hidden_size": 384, "mlp_dim": 1536, "num_heads": 6, "feature_size": 16}
PLAIN, PRUNED, RESTORED, CEILING = "plain", "pruned", "gates taken out", "everything pruned"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What is built and how it is trained.

    widths: arguments of MONAI's UNETR. first: stages of the plain network. pruned: stages of the copy with gates; the
    plain network goes through them too, without gates, so that neither has learned for longer. Their sizes are replaced
    by that of the data. safety_ring: of `prune_attention`. gate_rate: of the gates, times the learning rate.
    """

    widths: Mapping[str, Any] = field(default_factory=lambda: WIDTHS)
    first: tuple[Stage, ...] = (Stage(22, (), 8, 5e-4, 5e-6),)
    pruned: tuple[Stage, ...] = (
        Stage(1, (), 8, 3e-4, 3e-4, gates="open"),
        Stage(3, (), 8, 3e-4, 3e-4, gates="tighten"),
        Stage(1, (), 8, 3e-4, 3e-4, gates="hold"),
        Stage(5, (), 8, 3e-4, 3e-6, gates="hard"),
    )
    safety_ring: int = 0  # a token is 16 pixels wide: a ring of them is a multiple of the organ
    gate_rate: float = 30.0
    ema_decay: float = 0.99  # 22 epochs of 46 batches: a longer memory would reach back to the beginning


def run(
    dataset: Path,
    config: TrainingConfig,
    *,
    keep: float = 0.3,
    minutes: float | None = None,
    output: Path | None = None,
    recipe: Recipe | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Train, prune, measure; the record is ready for JSON and for `render`. Everything on the CPU.

    Args:
        dataset: a folder in Medical Segmentation Decathlon layout.
        config: labels, preprocessing, split, augmentation, precision and seed are taken from it; network and schedule
            are the recipe's.
        keep: share of the tokens that the budget allows.
        minutes: of training in all; None runs the epochs of the recipe, which gives the same weights every time.
        output: a folder for the record and both networks' weights.
        say: is told what is being done.

    Raises:
        ConfigError: MONAI or einops is not installed, or the data set or the budget cannot be used.
        InputError: a case cannot be read.
        OutputError: `output` cannot be written.
    """
    recipe = recipe or Recipe()
    budget = Budget(keep=keep)
    size = tuple(PATCH * math.ceil(length / PATCH) for length in config.preprocessing.patch_size)
    phases = configurations(config, recipe, size, budget)
    with ExitStack() as undo:
        folder = output or Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="apformer-benchmark-")))
        cases = split_cases(read_dataset(dataset, config.split), config.split)
        training, validation = (PreparedCases(part, folder / "prepared", config.preprocessing) for part in cases)
        for part in (training, validation):
            part.build()
        plain, pruned, spent = _train(config, recipe, phases, size, training, minutes, say)
        say(f"measuring on {len(validation)} images")
        record = {
            "machine": describe_machine(),
            "data": {
                "folder": dataset.name,
                "training": {"images": len(training), "patients": len({case.patient for case in cases[0]})},
                "validation": {"images": len(validation), "patients": len({case.patient for case in cases[1]})},
            },
            "network": _describe(plain, pruned, config, size, recipe),
            "training": {
                "epochs": {name: phase.epochs for name, phase in phases.items()} if minutes is None else None,
                "minutes": spent,
                "precision": config.precision,
                "seed": config.seed,
            },
            "budget": str(budget),
            **measure(plain, pruned, validation, config, size),
            "restored": restoring(plain, pruned, validation, size),
        }
        if output is not None:
            _write(output, record, {PLAIN: plain, PRUNED: pruned})
    return record


def build_unetr(config: TrainingConfig, size: Sequence[int], widths: Mapping[str, Any]) -> nn.Module:
    """MONAI's UNETR for images of `size`, with random weights.

    Raises:
        ConfigError: MONAI or einops is not installed.
    """
    try:
        import einops  # noqa: F401
        from monai.networks.nets import UNETR
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed.",
            "It is needed to build MONAI's UNETR.",
            "Install both packages: pip install monai einops",
        ) from error
    return UNETR(config.channels, 1 + len(config.labels), tuple(size), spatial_dims=len(size), **widths)


def wrap(network: nn.Module, config: TrainingConfig, size: Sequence[int], recipe: Recipe) -> PrunedNetwork:
    """`network` with new gates, the same ones every time."""
    torch.manual_seed(config.seed)
    sample = torch.zeros(1, config.channels, *size)
    return prune_attention(network, sample=sample, safety_ring=recipe.safety_ring)


def configurations(
    config: TrainingConfig, recipe: Recipe, size: tuple[int, ...], budget: Budget
) -> dict[str, TrainingConfig]:
    """Of the three trainings, by name: "first", then "plain" and "pruned" from where it ended."""

    def phase(
        stages: Sequence[Stage], losses: LossWeights, pruning: Pruning | None, **of_stages: Any
    ) -> TrainingConfig:
        return replace(
            config,
            network="unetr",
            network_arguments={},
            preprocessing=replace(config.preprocessing, patch_size=size),
            stages=tuple(replace(stage, size=size, **of_stages) for stage in stages),
            losses=losses,
            pruning=pruning,
            ema_decay=recipe.ema_decay,
        )

    alone, with_head = LossWeights(1.0, 0.0, 0.0), LossWeights(0.9, 0.0, 0.1)  # the SSA loss is APFormer's own
    return {
        "first": phase(recipe.first, alone, None),
        PLAIN: phase(recipe.pruned, alone, None, gates="closed"),
        PRUNED: phase(recipe.pruned, with_head, Pruning(str(budget), recipe.gate_rate)),
    }


def _train(
    config: TrainingConfig,
    recipe: Recipe,
    phases: Mapping[str, TrainingConfig],
    size: Sequence[int],
    cases: PreparedCases,
    minutes: float | None,
    say: Say,
) -> tuple[nn.Module, PrunedNetwork, dict[str, float]]:
    """The plain network, the pruned one, and the minutes that each training took."""
    epochs = sum(phase.epochs for phase in phases.values())
    spent: dict[str, float] = {}

    def trained(network: nn.Module, name: str) -> nn.Module:
        say(f"training: {name}")
        started = time.monotonic()
        allowed = None if minutes is None else minutes * phases[name].epochs / epochs
        network = train(network, phases[name], cases, allowed, say)
        spent[name] = (time.monotonic() - started) / 60
        return network

    torch.manual_seed(config.seed)
    base = trained(build_unetr(config, size, recipe.widths), "first")
    pruned = trained(wrap(copy.deepcopy(base), config, size, recipe), PRUNED)
    plain = trained(base, PLAIN)
    assert isinstance(pruned, PrunedNetwork)
    return plain, pruned, spent


def _describe(
    plain: nn.Module, pruned: PrunedNetwork, config: TrainingConfig, size: Sequence[int], recipe: Recipe
) -> dict[str, Any]:
    macs = count_macs(plain, (1, config.channels, *size))
    return {
        "name": "MONAI UNETR",
        "settings": dict(recipe.widths),
        "parameters": count_parameters(plain),
        "size": list(size),
        "tokens": math.prod(length // PATCH for length in size),
        "blocks": len(pruned.costs),
        "safety_ring": recipe.safety_ring,
        "attention_macs": macs.attention,
    }


@torch.inference_mode()
def measure(
    plain: nn.Module, pruned: PrunedNetwork, validation: PreparedCases, config: TrainingConfig, size: Sequence[int]
) -> dict[str, Any]:
    """Every validation image through every variant in turn, in float32, one at a time, compared on its own grid.

    "seconds" is the median over images, "ratio" the median of the image-by-image ratios to the plain network. Dice is
    pooled over all images, and the mean over images. MACs include products of activations and the prune head; what is
    left out are the dependency gates' own, head_dim per kept query and head.
    """
    networks: dict[str, nn.Module] = {PLAIN: plain, PRUNED: pruned, RESTORED: copy.deepcopy(pruned).restore()}
    networks[CEILING] = _pruning_everything(pruned)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    masks: dict[str, list[Tensor]] = {name: [] for name in networks}
    references, kept, macs = [], [], []
    for network in networks.values():
        network.eval()(_image(validation, 0, size))  # warms up, does not count
    for index in range(len(validation)):
        image, reference = _image(validation, index, size), validation.item(index)[1][0]
        references.append(reference)
        for name, network in networks.items():
            started = time.perf_counter()
            logits = network(image)
            seconds[name].append(time.perf_counter() - started)
            predicted = fit(logits[0].argmax(0)[None].float(), reference.shape)[0]
            masks[name].append(predicted.to(torch.uint8))
        work = pruned(image, auxiliaries=True)[1]
        kept.append(float(work.kept.mean()))
        macs.append(float(work.transformer_macs[0]))
    blocks = dense_macs(pruned.costs, work.kept[0].numel())
    counted = {name: float(count_macs(networks[name], (1, config.channels, *size)).total) for name in (PLAIN, CEILING)}
    spent = {**counted, PRUNED: counted[CEILING] + statistics.fmean(macs), RESTORED: counted[PLAIN]}
    rows = []
    for name, own in seconds.items():
        ratios = [time / base for time, base in zip(own, seconds[PLAIN], strict=True)]
        row = {"network": name, "seconds": statistics.median(own), "ratio": statistics.median(ratios)}
        row |= {"ratio_range": [five_numbers(ratios)["q1"], five_numbers(ratios)["q3"]], "gmac": spent[name] / 1e9}
        row["dice"] = None if name == CEILING else _agreement(masks[name], references, config)
        rows.append(row)
    shares = {"kept_tokens": five_numbers(kept), "kept_tokens_mean": statistics.fmean(kept)}
    return {"rows": rows, **shares, "transformer_macs_share": statistics.fmean(macs) / blocks}


def _image(cases: PreparedCases, index: int, size: Sequence[int]) -> Tensor:
    """(1, C, *size)."""
    return fit(cases.item(index)[0], size)[None]


def _pruning_everything(pruned: PrunedNetwork) -> PrunedNetwork:
    """A copy that keeps no token."""
    network = copy.deepcopy(pruned)
    network.query_gate.threshold.data.fill_(torch.inf)
    return network


def _agreement(
    masks: Sequence[Tensor], references: Sequence[Tensor], config: TrainingConfig
) -> dict[str, dict[str, float]]:
    """Label name -> Dice pooled over the images and mean over them; a label that no image has is left out."""
    found = {}
    for label in config.labels:
        pairs = [
            ((ours == label.value).numpy(), (theirs == label.value).numpy())
            for ours, theirs in zip(masks, references, strict=True)
        ]
        together = over_cases([Overlap.of(*pair) for pair in pairs])
        if together.mean_dice is not None and together.pooled_dice is not None:
            found[label.name] = {"pooled": together.pooled_dice, "mean": together.mean_dice}
    return found


@torch.inference_mode()
def restoring(
    plain: nn.Module, pruned: PrunedNetwork, validation: PreparedCases, size: Sequence[int]
) -> dict[str, Any]:
    """What is left when the gates are taken out: the plain network, to the bit, on every validation image.

    "as_gates_off": images on which the restored network gives what the pruned one gives with its gates off.
    "as_plain": images on which, given the plain network's weights, it gives what the plain network gives.
    """
    restored = copy.deepcopy(pruned).restore().eval()
    same_keys = list(restored.state_dict()) == list(plain.state_dict())
    images = [_image(validation, index, size) for index in range(len(validation))]
    own = [restored(image) for image in images]
    before, pruned.gating = pruned.gating, "off"
    try:
        off = sum(torch.equal(found, pruned(image)) for found, image in zip(own, images, strict=True))
    finally:
        pruned.gating = before
    restored.load_state_dict(plain.state_dict())
    same = sum(torch.equal(restored(image), plain(image)) for image in images)
    return {"images": len(images), "same_parameters": same_keys, "as_gates_off": off, "as_plain": same}


def _write(folder: Path, record: dict[str, Any], networks: Mapping[str, nn.Module]) -> None:
    """record.json, and NAME.safetensors of each network."""
    import json

    from safetensors.torch import save_file

    for name, network in networks.items():
        with atomic_path(folder / f"{name}.safetensors") as temporary:
            save_file({key: value.contiguous() for key, value in network.state_dict().items()}, temporary)
    with atomic_path(folder / "record.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")
