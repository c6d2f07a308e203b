"""Trains what `apformer.following.edge_network` begins with: `.venv/bin/python train_edges.py DATA -o WEIGHTS`.

DATA is the folder with head-neck-ct, left-atrium-mr, hippocampus-mr and brain-label-maps. What is learned is how an
interpolated outline lies beside the image's edges, whatever the structure: of each volume one structure, one axis and
some of its slices are drawn by lot and interpolated, others between them are the examples. Images made from label maps
have any contrast. The structures that the README's figures are about are left out: nothing of abdomen-mr and
acdc-cine-mr, of head-neck-ct no parotid gland and no mandible, and every second patient is left out.

The weights of this version were trained by an earlier form of this file: 5 minutes of processor time in two goes, the
second with a rate that fell to nothing; turned by any angle instead of quarters, zoomed by up to a third.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "APFormerSlicer"))

from apformer.bundles.weights import pack
from apformer.datasets.listing import Pair, read_listing
from apformer.files import read_volume
from apformer.following.edge_learning import Draw, changed, segmentation_loss
from apformer.following.edge_network import GREY, Channel, EdgeNetwork
from apformer.following.outlined import Outlined, _resized

SIDE = 96  # px of an example
BATCH, PEAK_RATE, WARM_UP, DECAY = 12, 3e-3, 50, 0.99
SIZES = (40, 64)  # see `outlined.SIZE`; here by lot
PER_VISIT = 4  # examples of one drawn structure
WINDOWS, CENTRE = (250, 500, 1500), 40  # HU
HELD_OUT = 96
MOST_PATIENTS = 30


class Source(NamedTuple):
    """A data set: how many examples it gives, label values that are left out, every how many patients."""

    examples: int
    without: tuple[int, ...] = ()
    every: int = 1
    any_axis: bool = True


SOURCES = {
    "head-neck-ct": Source(1200, (3, 4, 5), 2, any_axis=False),
    "left-atrium-mr": Source(1000),
    "hippocampus-mr": Source(600, (), 2),
    "brain-label-maps": Source(3500),
}
Stack = tuple[np.ndarray, np.ndarray, tuple[float, float, float]]  # image, labels (k, j, i), spacing (k, j, i)


def stacks(folder: Path, rng: np.random.Generator) -> Iterator[Stack]:
    """The volumes of a data set, or images made from its label maps."""
    if folder.name == "brain-label-maps":
        for path in sorted((folder / "labelsTr").glob("*.nii.gz")):
            yield painted(np.asarray(read_volume(path).array), rng)
        return
    source = SOURCES[folder.name]
    pairs = [pair for pair in read_listing(folder).pairs if set(source.without) <= set(pair.labelled or ())]
    for pair in sorted(pairs, key=lambda pair: pair.stem)[:: source.every][:MOST_PATIENTS]:
        yield read_pair(pair)


def read_pair(pair: Pair) -> Stack:
    image, labels = read_volume(pair.images[0]), read_volume(pair.labels)
    k, j, i = reversed(image.spacing_ijk)
    return image.array.astype(np.float32), np.asarray(labels.array).astype(int), (k, j, i)


def painted(labels: np.ndarray, rng: np.random.Generator) -> Stack:
    """An image with a grey value by lot for each label, noise, blur and shading; thick slices in most."""
    k, j, i = ndimage.find_objects((labels > 0).astype(int))[0]
    thick = int(rng.integers(1, 5))
    labels = labels[k, j, i][::thick].astype(int)
    grey = rng.uniform(0, 1, labels.max() + 1).astype(np.float32)[labels]
    grey = ndimage.gaussian_filter(grey + rng.normal(0, rng.uniform(0.01, 0.08), labels.shape), rng.uniform(0.3, 1.2))
    field = ndimage.zoom(rng.normal(0, 0.25, (4, 4, 4)), [n / 4 for n in labels.shape], order=1)
    return (1000 * grey * np.exp(field)).astype(np.float32), labels, (float(thick), 1.0, 1.0)


def examples(folder: Path, rng: np.random.Generator) -> Tensor:
    """(n, `Channel` and the share of a pixel that is inside, SIDE, SIDE), float16."""
    source, found = SOURCES[folder.name], []
    volumes = list(stacks(folder, rng)) if folder.name != "brain-label-maps" else stacks(folder, rng)
    count = len(volumes) if isinstance(volumes, list) else len(list((folder / "labelsTr").glob("*.nii.gz")))
    for image, labels, spacing in volumes:
        values = [value for value in np.unique(labels) if value and value not in source.without]
        if folder.name == "head-neck-ct" and rng.random() < 0.8:
            half = rng.choice(WINDOWS) / 2
            image = np.clip(image, CENTRE - half, CENTRE + half)
        wanted = math.ceil(source.examples / count)
        have: list[np.ndarray] = []
        for _ in range(3 * wanted):
            if not values or len(have) >= wanted:
                break
            axis = int(rng.integers(0, 3)) if source.any_axis and spacing[0] < 2 * spacing[1] else 0
            edges = [edge for other, edge in enumerate(spacing) if other != axis]
            mask = np.moveaxis(labels == rng.choice(values), axis, 0)
            have += visited(np.moveaxis(image, axis, 0), mask, (edges[0], edges[1]), rng)
        found += have
    return torch.from_numpy(np.stack(found))


def visited(
    image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Examples of a structure that is outlined on slices drawn by lot."""
    there = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(there) < 4:
        return []
    first, last = int(there[0]), int(there[-1])
    every = int(np.clip(math.ceil((last - first) / rng.integers(2, 8)), 2, 12))
    begin = first + int(rng.integers(0, every)) if rng.random() < 0.3 else first
    slices = sorted({*range(begin, last + 1, every), *([last] if rng.random() < 0.7 else [])})
    gaps = [index for index in range(slices[0] + 1, slices[-1]) if index not in slices]
    if len(slices) < 2 or not gaps:
        return []
    structure = Outlined(image, {index: mask[index] for index in slices}, spacing, float(rng.integers(*SIZES)))
    found = []
    for index in rng.choice(gaps, min(PER_VISIT, len(gaps)), replace=False).tolist():
        before, after = structure.neighbours(index)
        seen = structure.channels(index, structure.prior(index, before, after), before, after)
        inside = _resized(mask[index][structure.box][None], structure.shape)
        found.append(cut(np.concatenate([seen, inside]), rng).astype(np.float16))
    return found


def cut(channels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of SIDE pixels by lot, edges repeated where there are fewer."""
    missing = [max(0, SIDE - n) for n in channels.shape[1:]]
    channels = np.pad(channels, [(0, 0), *((n // 2, n - n // 2) for n in missing)], mode="edge")
    row, column = (int(rng.integers(0, n - SIDE + 1)) for n in channels.shape[1:])
    return channels[:, row : row + SIDE, column : column + SIDE]


def train(pool: Tensor, seconds: float) -> tuple[EdgeNetwork, dict[str, float]]:
    """The mean of its weights over the last steps, after `seconds` of processor time, and Dice of held-out examples."""
    torch.manual_seed(0)
    draw = Draw(0)
    order = torch.randperm(len(pool), generator=draw.generator)
    held_out, pool = pool[order[:HELD_OUT]], pool[order[HELD_OUT:]]
    network, mean = EdgeNetwork(), EdgeNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-4)
    began, step = time.process_time(), 0
    while (passed := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, step / WARM_UP) * (0.5 * (1 + math.cos(math.pi * passed)) + 0.01)
        batch = pool[torch.randint(len(pool), (BATCH,), generator=draw.generator)].float()
        seen, inside = changed(*any_way_round(batch, draw), draw)
        loss = segmentation_loss(network(seen), inside)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        share = max(1 - DECAY, 1 - step / (step + 10))
        for slow, fast in zip(mean.parameters(), network.parameters(), strict=True):
            slow.data.lerp_(fast.data, share)
        if step % 100 == 0:
            print(f"{step} steps, {100 * passed:.0f} %: Dice {agreement(mean, held_out)}", flush=True)
    return mean, agreement(mean, held_out)


def any_way_round(batch: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Mirrored, in quarter turns, and in some with grey values upside down: edges are the same in all."""
    batch = torch.stack([torch.rot90(one, draw.index(4), (1, 2)) for one in batch])
    batch = torch.where(draw.between(0, 1, len(batch), 1, 1, 1) < 0.5, batch.flip(3), batch)
    sign = torch.where(draw.between(0, 1, len(batch), 1, 1, 1) < 0.3, -1.0, 1.0)
    gamma = draw.between(-0.4, 0.4, len(batch), 1, 1, 1).exp()
    grey = batch[:, GREY]
    batch[:, GREY] = sign * grey.sign() * grey.abs().clamp_min(1e-4) ** gamma
    return batch[:, :-1], batch[:, -1]


@torch.inference_mode()
def agreement(network: EdgeNetwork, held_out: Tensor) -> dict[str, float]:
    """Mean Dice of slices that show the structure: of the interpolation, and of the network."""
    seen, true = held_out[:, :-1].float(), held_out[:, -1] > 0.5
    shown = true.any(dim=2).any(dim=1)

    def dice(found: Tensor) -> float:
        common, size = (found & true).sum((1, 2)), found.sum((1, 2)) + true.sum((1, 2))
        return float((2 * common / size.clamp_min(1))[shown].mean())

    return {"interpolated": dice(seen[:, Channel.PRIOR] < 0), "network": dice(network(seen) > 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.0, help="of processor time, after the examples are made")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pool = torch.cat([examples(options.data / name, rng) for name in SOURCES])
    print(f"{len(pool)} examples", flush=True)
    network, found = train(pool, options.minutes * 60)
    options.output.write_bytes(pack(network.state_dict()))
    print(found)


if __name__ == "__main__":
    main()
