"""What the fine-tuning tests work on: bright balls in noise, a small trained-like base, a library of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from apformer.bundles import Bundle, ModelLibrary
from apformer.datasets import SiteDataset, identity
from apformer.datasets.table import make_table
from apformer.finetuning import Request
from apformer.networks import build_network
from apformer.training.config import parse_config
from apformer.training.run import write_bundle
from apformer.volume import Volume
from training_samples import SETTINGS

identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients
GRID = np.diag([-1.0, -1.0, 1.0, 1.0])
SIDE = 16
SALT = "5" * 32  # the same patients validate each time


def a_ball(seed: int, value: int = 1, side: int = SIDE) -> tuple[Volume, Volume]:
    """Noise with a bright ball (label `value`) and a dark one (label `value` + 1) at places of their own."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"))
    bright, dark = (((grid - c[:, None, None, None]) ** 2).sum(0) < 10 for c in generator.integers(4, side - 4, (2, 3)))
    dark &= ~bright
    image = generator.normal(0, 10, (side,) * 3) + 100.0 * bright - 100.0 * dark
    labels = (value * bright + (value + 1) * dark).astype(np.uint8)
    return Volume(image.astype(np.float32), GRID, "MR"), Volume(labels, GRID)


def a_site(folder: Path, patients: int = 8, labels: str = "Ball,Hole", only: int | None = None) -> SiteDataset:
    """A data set with one completed case per patient; `only` keeps a single value of their label maps."""
    dataset = SiteDataset.create(folder, make_table([labels]), salt=SALT)
    for seed in range(patients):
        image, truth = a_ball(seed)
        kept = truth if only is None else truth.with_array(np.where(truth.array == only, only, 0).astype(np.uint8))
        dataset.add(image, kept, patient=f"patient {seed}")
    return dataset


def a_base(library: ModelLibrary, name: str = "ball", **network: Any) -> Bundle:
    """An untrained model of the label Ball, installed in the library as a version that is active."""
    settings = copy.deepcopy(SETTINGS)
    settings |= {"name": name, "network": {**settings["network"], **network}}
    config = parse_config(settings)
    torch.manual_seed(1)
    weights = build_network(config.network, config.network_arguments).state_dict()
    bundle = library.add_version(lambda folder: write_bundle(config, weights, folder))
    return library.activate(bundle.name, bundle.version)


def a_request(dataset: SiteDataset, **changes: Any) -> Request:
    settings: dict[str, Any] = {"name": "site-ball", "base": "ball", "steps": 6, "device": "cpu", "threads": 1}
    return Request(dataset=dataset.root, **{**settings, **changes})
