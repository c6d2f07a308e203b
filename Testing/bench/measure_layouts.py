"""Which grid a model from nothing gets: for the labelled data sets, and for odd ones, as docs/fine-tuning.md has it.

.venv/bin/python Testing/bench/measure_layouts.py ../shared/data
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from apformer.datasets.listing import read_listing
from apformer.files import read_volume
from apformer.finetuning.extents import LOOKED_AT, Extent, Seen, extents
from apformer.finetuning.layout import is_flat, lay_out
from apformer.finetuning.levels import lean_arguments

ODD = {
    "CT of 600 slices, liver 220 mm wide, 100 mm across": ((600, 512, 512), (0.8, 0.8, 1.0), (220.0, 100.0)),
    "the same, a nodule of 8 mm": ((600, 512, 512), (0.8, 0.8, 1.0), (8.0, 6.0)),
    "MR of 3 slices, tumour of 60 mm": ((3, 320, 320), (0.7, 0.7, 8.0), (60.0, 40.0)),
    "photo of 4000 x 3000, mole of 900 pixels": ((1, 3000, 4000), (1.0, 1.0, 1.0), (900.0, 700.0)),
    "cube of 20 voxels": ((20, 20, 20), (1.0, 1.0, 1.0), (12.0, 9.0)),
}


def of_folder(folder: Path) -> list[Seen]:
    """Cases of a Decathlon-style folder."""
    pairs = read_listing(folder).pairs
    return [of_files(pair.images[0], pair.labels) for pair in pairs[:: max(1, len(pairs) // LOOKED_AT)][:LOOKED_AT]]


def of_files(image: Path, labels: Path) -> Seen:
    found = read_volume(labels)
    array = np.asarray(found.array)
    values = [int(value) for value in np.unique(array) if value]
    spacing = np.linalg.norm(found.ijk_to_ras[:3, :3], axis=0)
    structures = extents(array, values, spacing)
    return Seen(found.spatial_shape, found.ijk_to_ras, image.suffix == ".png", structures)


def odd(shape_kji: tuple[int, ...], spacing: tuple[float, ...], structure: tuple[float, float], picture: bool) -> Seen:
    box, chord = structure
    k, j, i = shape_kji
    extent = Extent(1, np.full(3, box), np.full(3, chord))
    return Seen((k, j, i), np.diag([*spacing, 1.0]), picture, (extent,))


def row(name: str, cases: list[Seen]) -> str:
    found = lay_out(cases)
    kind = "2D" if is_flat(cases) else "3D"
    spacing = " x ".join(f"{mm:.3g}" for mm in found.spacing_mm)
    patch = " x ".join(str(voxels) for voxels in found.patch)
    edges = " x ".join(f"{mm * n:.0f}" for mm, n in zip(found.spacing_mm, found.patch, strict=True))
    lean = lean_arguments(found.patch[::-1], found.across)
    first = "full" if lean["strides"][0] == 1 else "half"
    tokens = math.prod(-(-size // math.prod(lean["strides"])) for size in found.patch)
    return f"| {name} | {kind} | {spacing} | {patch} | {edges} | {found.across:.1f} | {first} | {tokens} |"


def rows(folder: Path) -> Iterable[str]:
    for one in sorted(folder.iterdir()):
        if (one / "dataset.json").is_file():
            yield row(one.name, of_folder(one))
    for name, (shape, spacing, structure) in ODD.items():
        yield row(name, [odd(shape, spacing, structure, "photo" in name)])


if __name__ == "__main__":
    print("| cases | network | spacing (mm) | patch (voxels) | patch (mm) | thinnest (voxels) | starts at | tokens |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in rows(Path(sys.argv[1])):
        print(line, flush=True)
