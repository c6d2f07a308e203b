"""What the data set tests work on: small images of noise, blocks as labels, and a process that never stops writing."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from apformer.datasets import COMPLETED, SiteCase, SiteDataset, identity
from apformer.datasets.identity import file_hash
from apformer.datasets.table import make_table
from apformer.volume import Volume

identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients
GRID = np.diag([-1.5, -1.5, 3.0, 1.0])


def an_image(seed: int, shape: tuple[int, ...] = (4, 6, 5), matrix: np.ndarray = GRID, modality: str = "MR") -> Volume:
    """int16 noise (k, j, i)."""
    voxels = np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)
    return Volume(voxels, matrix, modality)


def some_labels(image: Volume, value: int = 1, size: int = 2) -> Volume:
    """A block of `size` voxels along each axis on the grid of `image`."""
    array = np.zeros(image.spatial_shape, np.uint8)
    array[:size, 1 : 1 + size, 1 : 1 + size] = value
    return image.with_array(array)


def a_dataset(folder: Path, patients: int = 0, labels: str = "Liver,Tumor", **settings: float) -> SiteDataset:
    """A data set with one completed case of each patient, all with the first label."""
    dataset = SiteDataset.create(folder, make_table([labels]), **settings)
    for number in range(patients):
        add_case(dataset, number)
    return dataset


def add_case(
    dataset: SiteDataset, seed: int, *, patient: str | None = None, size: int = 2, **settings: object
) -> SiteCase:
    """Add the image of `seed` with a block as its labels."""
    image = an_image(seed)
    case, _ = dataset.add(image, some_labels(image, size=size), patient=patient or f"patient {seed}", **settings)
    return case


def assert_sound(dataset: SiteDataset) -> None:
    """Every file that the index names is there and whole."""
    for case in dataset.cases():
        assert file_hash(case.image_path) == case.image.sha256
        for revision in case.revisions:
            assert file_hash(case.revision_path(revision)) == revision.sha256
        assert case.status != COMPLETED or case.labels_path is not None


def write_for_ever(folder: Path, seed: int) -> None:
    """Add, correct and remove cases until killed; each change is told on stdout once it is done."""
    dataset = SiteDataset.open(folder)
    for step in itertools.count(seed * 1000):
        case = add_case(dataset, step)
        print("added", case.name, 1, flush=True)
        dataset.correct(case.name, some_labels(an_image(step), value=2))
        print("corrected", case.name, 2, flush=True)
        if step % 3 == 2:
            print("removing", case.name, 0, flush=True)
            dataset.remove(case.name)


def kill_writers(folder: Path, kills: int, seed: int) -> None:
    """Kill one writer after another at random moments; the data set must be sound each time, and know all it told.

    Writers are forked from a process that has used no image library yet, so that each starts at once.
    """
    moments = random.Random(seed)
    told: dict[str, int] = {}
    for number in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writing, 1)
            write_for_ever(folder, number)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            started = time.monotonic()
            lines = [pipe.readline() for _ in range(moments.randint(1, 4))]
            a_step = (time.monotonic() - started) / len(lines)  # the moment falls anywhere in the steps that follow
            time.sleep(moments.uniform(0, 1.5) * a_step)
            os.kill(child, signal.SIGKILL)
            lines += pipe.readlines()
        os.waitpid(child, 0)
        for what, name, version in (line.split() for line in lines):
            told[name] = int(version)
            if what == "removing":
                del told[name]
        dataset = SiteDataset.open(folder)
        assert_sound(dataset)
        for name, version in told.items():
            assert len(dataset.case(name).revisions) >= version
    print(len(told))


if __name__ == "__main__":
    kill_writers(Path(sys.argv[1]), int(sys.argv[2]), seed=0)
