"""The batches of a training: which items, read, fitted and augmented; each decided by its place alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .augment import Augmenter, fit
from .cases import PreparedCases
from .config import Augmentation, Stage
from .pathology import erase_organ, replace_organ

Batch = dict[str, Tensor]
AROUND = 0.5  # of the items that do not fit into a batch's size are cut around a structure; the others anywhere


class Drawn(NamedTuple):
    """The items of a batch, and how many were drawn before it in the whole training."""

    place: int
    items: list[int]


class Draws:
    """Every item once before any is drawn again, in an order that `seed` decides; from any place on.

    Args:
        items: how many there are. It may grow: items that come meanwhile take part from the next pass on.
    """

    def __init__(self, items: Callable[[], int], seed: int) -> None:
        self.items, self.seed = items, seed

    def batches(self, place: int, size: int) -> Iterator[Drawn]:
        """Batches of `size`, or of all items where there are fewer, without end; `place` items were drawn before."""
        number, offset = divmod(place, self.items())
        order = self._order(number)[offset:]
        while True:
            wanted = min(size, self.items())
            while len(order) < wanted:
                number += 1
                order += self._order(number)
            yield Drawn(place, order[:wanted])
            place, order = place + wanted, order[wanted:]

    def _order(self, number: int) -> list[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        return torch.randperm(self.items(), generator=generator).tolist()


class AugmentedCases(torch.utils.data.Dataset[Batch]):
    """Batches of one stage: items fitted to its size and augmented, seeded by (seed, place).

    Seeding each batch by its place makes a run repeatable whatever the number of processes, and lets a resumed run
    continue exactly where it stopped.

    An item whose prepared form has become unreadable is replaced by the next one, and `unreadable` names its case.

    Args:
        share: what is this process's of a batch, where several share it. All make the whole batch, which costs a few
            hundredths of a step, and so train on what one process would.
    """

    def __init__(
        self,
        cases: PreparedCases,
        stage: Stage,
        config: Augmentation,
        seed: int,
        share: Callable[[Sequence[int]], list[int]] = list,
    ) -> None:
        self.cases, self.stage, self.config, self.seed, self.share = cases, stage, config, seed, share
        self.patch_size = cases.preprocessing.patch_size
        self.spatial_dims = cases.preprocessing.spatial_dims
        self.windowed = cases.preprocessing.intensity["kind"] == "window"
        self.augmenter = Augmenter(config, stage.size, self.windowed, self._edges())
        self.unreadable: dict[str, str] = {}

    def __getitem__(self, drawn: Drawn) -> Batch:
        """ "image" (B, C, *size) float32, "label" (B, 1, *size) uint8; "marks" (B, 1, *size) uint8 where there are any,
        and "missing" (B, 256) bool where any case of the set leaves structures out; see `PreparedCases`."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + drawn.place) % 2**63)
        fitted = [self._fitted(index, generator) for index in drawn.items]
        images, labels = torch.stack([item[0] for item in fitted]), torch.stack([item[1] for item in fitted])
        if images.shape[2:] != tuple(self.stage.size):
            images = F.interpolate(images, size=self.stage.size, mode="bilinear", antialias=True)
            labels = F.interpolate(labels, size=self.stage.size, mode="nearest-exact")
        images, labels = self.augmenter(images, labels, generator)
        if self.windowed:
            images = images.clamp_(0.0, 1.0)  # real input is clipped by the window too
        mine = self.share(range(len(images)))
        images, maps = images[mine], labels[mine].to(torch.uint8)
        batch = {"image": images, "label": maps[:, :1], **({"marks": maps[:, 1:]} if maps.shape[1] > 1 else {})}
        missing = [flags for item in fitted if (flags := self.cases.missing(item[2])) is not None]
        return {**batch, "missing": torch.stack(missing)[mine]} if missing else batch

    def _edges(self) -> list[float] | None:
        """Of a voxel of a batch, mm, along the axes of its images; None where the cases do not tell. Spacings are told
        along i, j, k, and images have their axes the other way round."""
        spacing = self.cases.preprocessing.spacing_mm
        if spacing is None or self.stage.cuts(self.spatial_dims):
            return None if spacing is None else list(spacing[::-1])
        resized = zip(spacing[::-1], self.patch_size, self.stage.size, strict=True)
        return [edge * before / after for edge, before, after in resized]

    def _fitted(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        """An item's image and label maps, float: cut to the stage's size from a random place, or, where images are
        shrunk to that, to the patch's; and its number as it was read."""
        image, label, index = self._read(index)
        chance, around, which, *offset = torch.rand(3 + self.spatial_dims, generator=generator).tolist()
        size = self.stage.size if self.stage.cuts(self.spatial_dims) else self.patch_size
        cuts = any(have > wanted for have, wanted in zip(image.shape[1:], size, strict=True))
        places = self.cases.places(index, label) if cuts and around < AROUND else []
        if self.spatial_dims == 2 and chance < self.config.empty_p:
            image, label = erase_organ(image, label)
        elif self.spatial_dims == 2 and chance < self.config.empty_p + self.config.replace_p:
            image, label = replace_organ(image, label)
        if places:
            offset = _around(places, which, offset, image.shape[1:], size)
        return fit(image, size, offset), fit(label.float(), size, offset), index

    def _read(self, index: int) -> tuple[Tensor, Tensor, int]:
        """The item, or the next one that can be read, and its number."""
        for step in range(len(self.cases)):
            place = (index + step) % len(self.cases)
            try:
                return *self.cases.item(place), place
            except InputError as error:
                self.unreadable[self.cases.case(place).name] = error.what
        raise InputError(
            "None of the prepared training cases can be read.",
            "There is nothing left to train on.",
            "Check the disk, then start the training again; cases are prepared anew.",
        )


def _around(
    places: Sequence[Tensor], which: float, offset: Sequence[float], shape: Sequence[int], size: Sequence[int]
) -> list[float]:
    """Where to cut so that a voxel of one of the structures, each as likely as any other, is in the inner half of what
    is cut, or as near to its middle as the image's edge allows.

    Args:
        places: see `PreparedCases.places`. which, offset: drawn from 0 to 1.

    Returns: as `fit` takes it.
    """
    structure, share = divmod(which * len(places), 1)  # one draw for both: which structure, and which voxel of it
    voxels = places[int(structure)]
    found = []
    voxel = voxels[int(share * len(voxels))].tolist()
    for place, have, cut, draw in zip(voxel, shape, size, offset, strict=True):
        start = place - cut * (0.25 + 0.5 * draw)
        found.append(min(1.0, max(0.0, start / (have - cut))) if have > cut else 0.0)
    return found


def endless(cases: PreparedCases, stage: Stage, config: Augmentation, seed: int) -> Iterator[Batch]:
    """Batches without end, one after another, for a loop that keeps no checkpoint."""
    items = AugmentedCases(cases, stage, config, seed)
    draws = Draws(cases.__len__, seed).batches(0, stage.batch_size)
    return (items[drawn] for drawn in draws)


def ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, each made while the one before it is worked on. What making one raises is raised here.

    They are made by a thread that computes with one core: two teams of threads that compete for the same cores wait for
    each other most of the time.
    """
    making = iter(batches)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as maker:
        coming = maker.submit(next, making, None)
        while (batch := coming.result()) is not None:
            torch.set_num_threads(threads)  # of this thread; and of those to come, which the maker's setting would be
            coming = maker.submit(next, making, None)
            yield batch
