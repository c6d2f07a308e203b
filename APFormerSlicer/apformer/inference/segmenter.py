"""Volume + bundle -> labels on the same voxel grid."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import nn

from ..bundles import Bundle
from ..errors import DeviceError
from ..memory import ran_out
from ..volume import Roi, Volume, paste
from .cleanup import clean_up
from .devices import choose_device, describe, release_cache
from .doubt import predict_insistently, prunes
from .fitness import check_fit
from .prediction import Prediction, Wanted
from .predictors import Predictor, predict_slices, predict_volume
from .preprocess import IntensityScaling, model_axes, model_size
from .ready import ready

T = TypeVar("T")


class Progress(Protocol):
    """Told how far a segmentation is: a fraction of 1 and a word for the step.

    The fraction rises, save that it starts once more when a pruned network found nothing and all is run again.
    """

    def __call__(self, fraction: float, message: str) -> None: ...


def _silent(fraction: float, message: str) -> None:
    """The default progress."""


@dataclass
class Result:
    """What a segmentation gives.

    Attributes:
        labels: uint8 label values on the input's grid: same shape, same matrix.
        uncertainty: entropy of the class probabilities in 0..1 (1: all classes equally likely), float32; on request.
        device: what really ran, in words.
        seconds: wall-clock time of the whole call.
        volumes_ml: per label name; empty for pictures, which have no size.
        warnings: what the user should know before relying on the result.
        kept_tokens: 1 where the network looked (in the cells of tokens that were not pruned), else 0, float32; on
            request. A network without pruning, and tiles that were run again without it, looked everywhere.
        dense_reruns: tiles (slices, or windows of them) that were run again without pruning; see `doubt`.
    """

    labels: Volume
    uncertainty: Volume | None
    device: str
    seconds: float
    volumes_ml: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    kept_tokens: Volume | None = None
    dense_reruns: int = 0


class Segmenter:
    """A bundle's network, loaded once and ready for any number of volumes.

    Args:
        bundle: a verified model.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Attributes:
        network: the bundle's, made ready for running only (see `ready`).

    Raises:
        DeviceError: the device is absent.
        BundleError: the weights cannot be loaded.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle = bundle
        self.device = choose_device(device)
        self.network = ready(bundle.build_network().eval(), bundle.preprocessing.spatial_dims)

    def adapted(self, network: nn.Module) -> Segmenter:
        """The same bundle and device with another network of the bundle's form, in evaluation mode; this one stays as
        it is, and so does `network`."""
        other = copy.copy(self)
        other.network = ready(copy.deepcopy(network), self.bundle.preprocessing.spatial_dims)
        return other

    def segment(
        self,
        volume: Volume,
        *,
        roi: Roi | None = None,
        uncertainty: bool = False,
        kept_tokens: bool = False,
        progress: Progress | None = None,
    ) -> Result:
        """Segment `volume`, or only the voxels in `roi` (outside it labels are 0, and so are the maps).

        Args:
            roi: a box of voxels; the whole volume without.
            uncertainty, kept_tokens: whether to make these maps of the `Result` too.
            progress: called between batches.

        Raises:
            InputError: the volume or the ROI cannot be used.
            DeviceError: not even the CPU has enough memory.
        """
        started = time.perf_counter()
        progress = progress or _silent
        if roi is not None:
            roi.check_inside(volume.spatial_shape)
        working = volume if roi is None else volume.cropped(roi)
        warnings = [*volume.notes, *check_fit(working, self.bundle, volume)]
        progress(0.0, "preparing")
        wanted = Wanted(uncertainty, kept_tokens)
        found, device = self._predict(working, wanted, progress, warnings)
        if roi is not None:
            found = found.mapped(partial(paste, roi=roi, shape_kji=volume.spatial_shape))
        counts = _voxels_per_value(found.labels)
        warnings += self._absences(counts)
        progress(1.0, "done")
        return Result(
            labels=_on_grid(volume, found.labels),
            uncertainty=None if found.uncertainty is None else _on_grid(volume, found.uncertainty),
            device=describe(device),
            seconds=time.perf_counter() - started,
            volumes_ml=self._volumes(counts, volume),
            warnings=warnings,
            kept_tokens=None if found.looked is None else _on_grid(volume, found.looked, np.float32),
            dense_reruns=found.dense_tiles if prunes(self.network) else 0,
        )

    @torch.inference_mode()
    def _predict(
        self, volume: Volume, wanted: Wanted, progress: Progress, warnings: list[str]
    ) -> tuple[Prediction, torch.device]:
        """What was found on `volume`'s grid, cleaned up, and the device that found it."""
        settings = self.bundle.preprocessing
        change = model_axes(volume, settings)
        array = change.apply(volume.array if volume.array.ndim == 4 else volume.array[None])
        scaling = IntensityScaling.for_array(volume.array, settings.intensity)
        size = model_size(volume, settings, change)
        clean = partial(
            clean_up,
            largest_component=settings.largest_component,
            one_piece_per_slice=settings.one_piece_per_slice,
            minimum_voxels=settings.minimum_volume_ml / volume.voxel_volume_ml,
        )
        for device in dict.fromkeys((self.device, torch.device("cpu"))):
            predictor = Predictor(self.bundle, self.network.to(device), device, wanted)
            predict = partial(_predict_on, predictor, array, scaling, size, progress)
            try:
                found, insisted = predict_insistently(self.network, predict, clean)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                if device.type == "cpu":
                    break
                release_cache(device)
                warnings.append(f"{describe(device)} ran out of memory; the CPU was used instead.")
                continue
            if insisted:
                warnings.append(
                    "With pruning the model found nothing, so the image was segmented again without: check the result."
                )
            return found.mapped(change.undo), device
        raise DeviceError(
            "There is not enough memory to segment this volume.",
            "No result was made.",
            "Close other programs, give a region of interest, or use a machine with more memory.",
        )

    def _absences(self, counts: np.ndarray) -> list[str]:
        return [f"No voxel was labelled {label.name}." for label in self.bundle.labels if not counts[label.value]]

    def _volumes(self, counts: np.ndarray, volume: Volume) -> dict[str, float]:
        if volume.source.kind == "picture":
            return {}
        return {label.name: float(counts[label.value]) * volume.voxel_volume_ml for label in self.bundle.labels}


def _predict_on(
    predictor: Predictor,
    array: np.ndarray,
    scaling: IntensityScaling,
    size: tuple[int, ...],
    progress: Progress,
    before: Prediction | None,
) -> Prediction:
    """Run the predictor over (C, k, j, i), again where there is a prediction `before`."""
    run = predict_slices if predictor.preprocessing.spatial_dims == 2 else predict_volume
    advance = partial(progress, message="segmenting" if before is None else "segmenting again without pruning")
    return _with_smaller_batches(predictor, partial(run, predictor, array, scaling, size, advance, before))


def _with_smaller_batches(predictor: Predictor, predict: Callable[[], T]) -> T:
    """Run `predict`; when memory runs out, halve the batch down to one slice before giving up."""
    while True:
        try:
            return predict()
        except (MemoryError, RuntimeError) as error:
            if predictor.largest_batch == 1 or not ran_out(error):
                raise
            predictor.largest_batch = max(1, predictor.largest_batch // 2)
            release_cache(predictor.device)


def _voxels_per_value(labels: np.ndarray) -> np.ndarray:
    """Voxels of each of the 256 values, slice by slice: `bincount` turns its input into 64-bit integers."""
    return sum((np.bincount(part.ravel(), minlength=256) for part in labels), np.zeros(256, np.int64))


def _on_grid(volume: Volume, array: np.ndarray, dtype: DTypeLike | None = None) -> Volume:
    return Volume(np.ascontiguousarray(array, dtype), volume.ijk_to_ras, source=volume.source)
