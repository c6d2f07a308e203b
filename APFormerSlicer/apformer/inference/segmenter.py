"""Volume + bundle -> labels on the same voxel grid."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch

from ..bundles import Bundle
from ..errors import DeviceError
from ..volume import Roi, Volume, paste
from .cleanup import clean_up
from .devices import choose_device, describe
from .fitness import check_fit
from .predictors import Predictor, predict_slices, predict_volume
from .preprocess import IntensityScaling, model_axes, model_size

T = TypeVar("T")


class Progress(Protocol):
    """Told how far a segmentation is: a fraction of 1 and a word for the step."""

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
    """

    labels: Volume
    uncertainty: Volume | None
    device: str
    seconds: float
    volumes_ml: dict[str, float]
    warnings: list[str] = field(default_factory=list)


class Segmenter:
    """A bundle's network, loaded once and ready for any number of volumes.

    Args:
        bundle: a verified model.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        DeviceError: the device is absent.
        BundleError: the weights cannot be loaded.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle = bundle
        self.device = choose_device(device)
        layout = torch.channels_last if bundle.preprocessing.spatial_dims == 2 else torch.channels_last_3d
        # torch's type stubs leave memory_format out
        self.network = bundle.build_network().eval().to(memory_format=layout)  # type: ignore[call-overload]

    def segment(
        self,
        volume: Volume,
        *,
        roi: Roi | None = None,
        uncertainty: bool = False,
        progress: Progress | None = None,
    ) -> Result:
        """Segment `volume`, or only the voxels in `roi` (outside it labels are 0, uncertainty too).

        Raises:
            InputError: the volume or the ROI cannot be used.
            DeviceError: not even the CPU has enough memory.
        """
        started = time.perf_counter()
        progress = progress or _silent
        if roi is not None:
            roi.check_inside(volume.spatial_shape)
        working = volume if roi is None else volume.cropped(roi)
        warnings = [*volume.notes, *check_fit(working, self.bundle)]
        progress(0.0, "preparing")
        labels, doubt, device = self._predict(working, uncertainty, progress, warnings)
        if roi is not None:
            labels = paste(labels, roi, volume.spatial_shape)
            doubt = None if doubt is None else paste(doubt, roi, volume.spatial_shape)
        counts = _voxels_per_value(labels)
        warnings += self._absences(counts)
        progress(1.0, "done")
        return Result(
            labels=_on_grid(volume, labels),
            uncertainty=None if doubt is None else _on_grid(volume, doubt),
            device=describe(device),
            seconds=time.perf_counter() - started,
            volumes_ml=self._volumes(counts, volume),
            warnings=warnings,
        )

    @torch.inference_mode()
    def _predict(
        self, volume: Volume, uncertainty: bool, progress: Progress, warnings: list[str]
    ) -> tuple[np.ndarray, np.ndarray | None, torch.device]:
        """Labels and uncertainty on `volume`'s grid, and the device that gave them."""
        settings = self.bundle.preprocessing
        change = model_axes(volume, settings)
        array = change.apply(volume.array if volume.array.ndim == 4 else volume.array[None])
        scaling = IntensityScaling.for_array(volume.array, settings.intensity)
        size = model_size(volume, settings, change)
        advance = partial(progress, message="segmenting")
        predict = predict_slices if settings.spatial_dims == 2 else predict_volume
        for device in dict.fromkeys((self.device, torch.device("cpu"))):
            predictor = Predictor(self.bundle, self.network.to(device), device)
            try:
                run = partial(predict, predictor, array, scaling, size, uncertainty, advance)
                labels, doubt = _with_smaller_batches(predictor, run)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                warnings.append(f"{describe(device)} ran out of memory; the CPU was used instead.")
                continue
            except (MemoryError, RuntimeError) as error:
                if not _is_cpu_exhaustion(error):
                    raise
                break
            clean_up(
                labels,
                largest_component=settings.largest_component,
                one_piece_per_slice=settings.one_piece_per_slice,
                minimum_voxels=settings.minimum_volume_ml / volume.voxel_volume_ml,
            )
            return change.undo(labels), None if doubt is None else change.undo(doubt), device
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


def _with_smaller_batches(predictor: Predictor, predict: Callable[[], T]) -> T:
    """Run `predict`; when the GPU runs out of memory, halve the batch down to one slice before giving up."""
    while True:
        try:
            return predict()
        except torch.OutOfMemoryError:
            if predictor.largest_batch == 1:
                raise
            predictor.largest_batch = max(1, predictor.largest_batch // 2)
            torch.cuda.empty_cache()


def _voxels_per_value(labels: np.ndarray) -> np.ndarray:
    """Voxels of each of the 256 values, slice by slice: `bincount` turns its input into 64-bit integers."""
    return sum((np.bincount(part.ravel(), minlength=256) for part in labels), np.zeros(256, np.int64))


def _is_cpu_exhaustion(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "not enough memory" in str(error).lower()


def _on_grid(volume: Volume, array: np.ndarray) -> Volume:
    return Volume(np.ascontiguousarray(array), volume.ijk_to_ras, source=volume.source)
