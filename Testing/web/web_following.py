"""A patient whom a real network reads wrongly in the same way on every slice, small enough to be corrected by a click.

The network has learned that the structure is what lies high on a cone of brightness. In this patient the structure
reaches further down, so that every slice is found too small.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from apformer.bundles import Bundle, Preprocessing
from apformer.networks import build_network
from apformer.volume import Volume
from bundle_samples import LABELS, save_sample
from torch.nn import functional as F

NAME = "hippocampus-test"
STRUCTURE = LABELS[0].name
SIDE, SLICES = 64, 9
BELIEVED_RADIUS, TRUE_RADIUS = 8.5, 13.0  # voxels of 1 mm, in this patient
_TOP, _BELIEVED = 120.0, 70.0  # brightness of the cone's tip, and from which the network believes in the structure
_FOOT = 20.0  # radius at which this patient's cone ends
_NETWORK = {
    "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "image_size": [SIDE, SIDE], "channels": [4, 8], "detail": 4,
    "width": 8, "depth": 1, "heads": 2, "head_dim": 4, "ffn_dim": 8,
}  # fmt: skip
_STEPS, _BATCH = 80, 8  # seconds of training


def save_model(directory: Path) -> Bundle:
    """Train the network and save it."""
    torch.manual_seed(0)
    network, generator = build_network("leanformer", _NETWORK), np.random.default_rng(0)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    network.train()
    for _ in range(_STEPS):
        images = np.stack([_slice(generator, generator.uniform(14, 24)) for _ in range(_BATCH)])
        scaled = (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
        logits = network(torch.from_numpy(scaled[:, None]))
        loss = F.cross_entropy(logits, torch.from_numpy((images > _BELIEVED).astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    settings = Preprocessing(
        spatial_dims=2,
        orientation="acquired",
        spacing_mm=None,
        patch_size=(SIDE, SIDE),
        intensity={"kind": "percentile", "lower": 0.0, "upper": 100.0},
    )
    return save_sample(
        directory,
        name=NAME,
        labels=LABELS[:1],
        preprocessing=settings,
        network_name="leanformer",
        network_arguments=_NETWORK,
        state_dict=network.state_dict(),
    )


def a_patient() -> Volume:
    """Slices of 1 x 1 mm, 3 mm apart, of a cone around the middle."""
    generator = np.random.default_rng(3)
    return Volume(
        np.stack([_slice(generator, _FOOT, 0.0) for _ in range(SLICES)]), np.diag([-1.0, -1.0, 3.0, 1.0]), "MR"
    )


def _slice(generator: np.random.Generator, foot: float, shift: float = 6.0) -> np.ndarray:
    """A cone of that radius somewhere near the middle, float32 (j, i), with some noise."""
    j, i = np.mgrid[:SIDE, :SIDE]
    middle = (SIDE - 1) / 2 + generator.uniform(-shift, shift, 2)
    distance = np.hypot(j - middle[0], i - middle[1])
    cone = np.clip(_TOP * (1 - distance / foot), 0, None)
    return (cone + generator.normal(0, 2, (SIDE, SIDE))).astype(np.float32)
