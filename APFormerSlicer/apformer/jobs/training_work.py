"""How much work a fine-tuning is, told from the index of the data set: no file is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..bundles import Preprocessing
from ..datasets import SiteCase, Split
from ..inference.preprocess import model_axes, model_size
from ..volume import Source, Volume
from .preflight import tiles, volume_bytes

_HALF = 2  # bytes: prepared images are float16, their label maps uint8


@dataclass(frozen=True)
class Extent:
    """What a case amounts to for a model.

    Attributes:
        items: slices (2D) or volumes (3D) to learn from. tiles: runs of the network that segment it.
        stored: voxels of its file. prepared_bytes: on disk. memory_bytes: while it is segmented.
    """

    items: int
    tiles: int
    stored: int
    prepared_bytes: int
    memory_bytes: int

    @classmethod
    def of(cls, site: SiteCase, settings: Preprocessing, channels: int, classes: int, maps: int) -> Extent:
        """`maps`: how many label maps are kept per case; see `training.cases.prepare`."""
        image = site.image
        shape = image.shape_kji if image.channels == 1 else (image.channels, *image.shape_kji)
        empty = np.broadcast_to(np.zeros((), image.dtype), shape)  # takes no memory
        source = Source(None, kind="picture" if image.is_picture else "memory")
        volume = Volume(empty, image.matrix, site.modality, source)
        change = model_axes(volume, settings)
        size = model_size(volume, settings, change)
        flat = settings.spatial_dims == 2
        slices = volume.spatial_shape[2 - change.order[2]] if flat else 1
        return cls(
            items=slices,
            tiles=slices * tiles(size, settings),
            stored=math.prod(volume.spatial_shape),
            prepared_bytes=slices * math.prod(size) * (_HALF * channels + maps),
            memory_bytes=sum(volume_bytes(volume, settings, channels, classes)),
        )


@dataclass(frozen=True)
class Work:
    """The trainings that a fine-tuning is made of.

    Attributes:
        trainings: (training, validation) cases of each; the last one of a cross-validation learns from all cases and
            is judged by none.
    """

    extents: dict[str, Extent]
    trainings: tuple[tuple[tuple[SiteCase, ...], tuple[SiteCase, ...]], ...]
    cross_validated: bool

    @classmethod
    def of(cls, sites: Sequence[SiteCase], split: Split, extents: dict[str, Extent]) -> Work:
        rounds = [tuple(map(tuple, split.divide(sites, fold))) for fold in range(split.rounds)]
        if split.is_cross_validation:
            rounds.append((tuple(site for _, part in rounds for site in part), ()))
        return cls(extents, tuple((training, validation) for training, validation in rounds), split.is_cross_validation)

    @property
    def learning(self) -> tuple[SiteCase, ...]:
        """Those that the final weights have seen."""
        return self.trainings[-1][0]

    @property
    def judging(self) -> tuple[SiteCase, ...]:
        """Those that the new model is judged on; of a cross-validation, all."""
        return tuple(site for _, validation in self.trainings for site in validation)

    @property
    def cases(self) -> tuple[SiteCase, ...]:
        """All that take part."""
        return self.learning if self.cross_validated else self.learning + self.judging

    def total(self, what: str, sites: Sequence[SiteCase]) -> int:
        """The sum of an extent's attribute over some cases."""
        return sum(getattr(self.extents[site.name], what) for site in sites)

    def counts(self) -> dict[str, int]:
        """For a host: cases and patients on either side, and how many folds (1 = a single frozen split)."""
        counts = {}
        for side, sites in (("training", self.learning), ("validation", self.judging)):
            counts[f"{side}_cases"] = len(sites)
            counts[f"{side}_patients"] = len({site.patient for site in sites})
        return counts | {"folds": len(self.trainings) - 1 if self.cross_validated else 1}

    def in_words(self) -> str:
        """ "8 cases of 6 patients, judged on 2 cases of 2 patients kept apart"."""
        learning, judging = _many(self.learning), _many(self.judging)
        if self.cross_validated:
            folds = len(self.trainings) - 1
            return f"{learning} by {folds}-fold cross-validation: {folds} trainings to judge by, and one on all cases"
        return f"{learning}, judged on {judging} kept apart"


def _many(sites: Sequence[SiteCase]) -> str:
    patients = len({site.patient for site in sites})
    return f"{_count(len(sites), 'case')} of {_count(patients, 'patient')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
