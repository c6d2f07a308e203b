"""A small model for the bundle tests: two labels in MR volumes, an APFormer of a few thousand parameters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from apformer.bundles import Bundle, Code, Label, Preprocessing, save_bundle
from apformer.bundles.manifest import METADATA, NETWORK, WEIGHTS, write_checksums
from apformer.networks import build_network

ANATOMY = Code("SCT", "123037004", "Anatomical structure")
HIPPOCAMPUS = Code("SCT", "3710005", "Hippocampus")
LEFT = Code("SCT", "7771000", "Left")
LABELS = (
    Label(1, "anterior", (220, 80, 60), ANATOMY, HIPPOCAMPUS, LEFT),
    Label(2, "posterior", (60, 120, 220), ANATOMY, HIPPOCAMPUS),
)
PREPROCESSING = Preprocessing(
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(16, 16, 16),
    intensity={"kind": "percentile", "lower": 0.5, "upper": 99.5},
    field_of_view_mm=(35.0, 51.0, 35.0),
)
ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "image_size": [16, 16, 16],
    "channels": [2, 2, 2, 4],
    "depth": 1,
    "heads": 1,
    "head_dim": 4,
    "ffn_dim": 4,
}


def sample_network(seed: int = 0) -> torch.nn.Module:
    """The network of the sample, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network("apformer", ARGUMENTS).eval()


def save_sample(directory: Path, **changes: Any) -> Bundle:
    """Save the sample model, with some of `save_bundle`'s arguments changed."""
    arguments: dict[str, Any] = {
        "name": "hippocampus-test",
        "version": "1.0.0",
        "description": "Hippocampus in T1 MR, for tests",
        "modality": "MR",
        "channels": 1,
        "labels": LABELS,
        "preprocessing": PREPROCESSING,
        "network_name": "apformer",
        "network_arguments": ARGUMENTS,
        "state_dict": sample_network().state_dict(),
        "card": "# A test model\n",
        "training": {"epochs": 0, "hardware": "none"},
        "metrics": {"cases": ["case-1"], "mean_dice": 0.5},
        "data_licence": "CC0 1.0",
    }
    return save_bundle(directory, **(arguments | changes))


def reseal(directory: Path) -> None:
    """Write checksums that fit the files as they are now, as an attacker would."""
    (directory / "SHA256SUMS").unlink(missing_ok=True)
    write_checksums(directory)


def edit_json(directory: Path, path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a bundle and make the checksums fit."""
    file = directory / path
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")
    reseal(directory)


__all__ = [
    "ARGUMENTS",
    "LABELS",
    "METADATA",
    "NETWORK",
    "PREPROCESSING",
    "WEIGHTS",
    "edit_json",
    "reseal",
    "sample_network",
    "save_sample",
]
