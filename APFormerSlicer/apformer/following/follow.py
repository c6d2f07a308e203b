"""Corrected slices in, the rest of the volume proposed anew, within seconds that are fixed beforehand.

Test-time adaptation to a user's corrections, as in Xu et al., "Online adaptation of interactive segmentation" (arXiv
2503.06717), with the small networks of this project on a processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..finetuning.blend import blended
from ..inference import Segmenter
from ..inference.devices import describe
from ..inference.preprocess import model_axes, model_size
from ..training.average import Average
from ..volume import Volume
from .corrections import Corrections
from .examples import Examples, examples
from .followed import Followed, volumes_ml
from .guard import MOST_FORGOTTEN, Evidence, folds, forgotten
from .learning import learn

SECONDS = 8.0
MOST_STEPS = 30  # of one learning; more are learned by heart
FEWEST_STEPS = 4  # also where time is too short for more
MOST_LEARNING = 0.9  # of the progress that is shown
LEAST_LEARNING = 0.4  # of the seconds, also where proposing anew takes most of them
NO_GAIN = (
    "Nothing would be gained: what the network learned from one part of the corrections did not help on the other. The "
    "proposal stays as it was. Correct another slice, where the model erred in the same way, and try again, or go on "
    "by hand."
)
TOO_LITTLE = (
    "Too little was corrected to learn from and to check what was learned. The proposal stays as it was. Correct a "
    "whole slice and mark it as right, or draw a second stroke, and try again."
)
Progress = Callable[[float, str], None]
"""Told how far it is, 0 to 1, and what is done; what it raises ends the work, and nothing was changed."""


def follow(
    volume: Volume,
    segmenter: Segmenter,
    corrections: Corrections,
    *,
    seconds: float = SECONDS,
    progress: Progress | None = None,
    seed: int = 0,
) -> Followed:
    """Learn from `corrections` and propose what the user has not touched.

    Args:
        volume: the image that was segmented.
        segmenter: of the model that made the proposal; it is not changed.
        seconds: for all of it, on the machine as it is now; a large volume may take longer to be proposed anew.

    Raises:
        InputError: the corrections are not on the grid of the volume.
        DeviceError: not even the CPU has enough memory.
    """
    if corrections.labels.shape != volume.spatial_shape:
        raise InputError(
            f"The corrections have {corrections.labels.shape} voxels (k, j, i), the image {volume.spatial_shape}.",
            "The volume was changed meanwhile, or something was drawn outside the image.",
            "Choose the image that was segmented, or segment this one; what was drawn stays as it is.",
        )
    return _Following(volume, segmenter, corrections, seconds, progress or (lambda fraction, message: None), seed).run()


class _Following:
    """One run of `follow`."""

    def __init__(
        self,
        volume: Volume,
        segmenter: Segmenter,
        corrections: Corrections,
        seconds: float,
        progress: Progress,
        seed: int,
    ) -> None:
        self.volume, self.segmenter, self.corrections = volume, segmenter, corrections
        self.seconds, self._progress, self._told = seconds, progress, 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self.started = time.perf_counter()
        self.steps = 0

    def run(self) -> Followed:
        self.progress(0.0, "preparing")
        bundle = self.segmenter.bundle
        network = bundle.build_network().eval().to(self.segmenter.device)
        base = _weights_of(network)
        before = time.perf_counter()
        known = examples(self.volume, bundle, network, self.corrections)
        left_out = folds(known)
        if not left_out:
            return self._unchanged(Evidence(), TOO_LITTLE)
        end = self._learning_end(known, time.perf_counter() - before)
        evidence, soup = Evidence(), Average(network)
        for number, held in enumerate(left_out):
            now = time.perf_counter() - self.started
            self._learn(network, known.without(held), (now, now + (end - now) / (len(left_out) - number)))
            soup.add(network)
            evidence.add(network, base, _weights_of(network), known, held)
            network.load_state_dict(base)
        for share in evidence.shares():
            weights = blended(base, soup.weights(), share)
            network.load_state_dict(weights)
            if forgotten(network, known) <= MOST_FORGOTTEN:
                return self._proposed(network, weights, share, evidence)
        return self._unchanged(evidence, NO_GAIN)

    def progress(self, fraction: float, message: str) -> None:
        """Tell it; it never falls back."""
        self._told = max(self._told, min(1.0, fraction))
        self._progress(self._told, message)

    def _learning_end(self, known: Examples, asked_s: float) -> float:
        """When learning ends, in seconds since the beginning: what the new proposal leaves of the time.

        Args:
            asked_s: how long the base took for the examples, from which follows what the whole volume takes.
        """
        asked = known.images.shape[0] * int(np.prod(known.images.shape[2:]))
        proposing = asked_s * _network_voxels(self.volume, self.segmenter) / asked
        now = time.perf_counter() - self.started
        return now + max(self.seconds - now - proposing, LEAST_LEARNING * self.seconds)

    def _learn(self, network: nn.Module, known: Examples, between: tuple[float, float]) -> None:
        """Learn between two times, seconds since the beginning; fewer when all steps are made earlier."""
        begin, end = between

        def pace(steps: int) -> float:
            now = time.perf_counter() - self.started
            self.progress(min(MOST_LEARNING, now / self.seconds), "learning")
            done = max(steps / MOST_STEPS, (now - begin) / max(end - begin, 1e-3))
            return done if steps >= FEWEST_STEPS else min(done, 0.5)

        windowed = self.segmenter.bundle.preprocessing.intensity["kind"] == "window"
        self.steps += learn(network, known, pace, self.generator, windowed)

    def _proposed(
        self, network: nn.Module, weights: dict[str, torch.Tensor], share: float, evidence: Evidence
    ) -> Followed:
        began = min(MOST_LEARNING, (time.perf_counter() - self.started) / self.seconds)

        def tell(fraction: float, message: str = "") -> None:
            self.progress(began + (1 - began) * fraction, "proposing the rest")

        segmenter = self.segmenter.adapted(network)
        # a whole volume may be one step for the segmenter, and must be stopped all the same
        segmenter.network.register_forward_pre_hook(lambda *_: tell(0.0))
        result = segmenter.segment(self.volume, uncertainty=True, progress=tell)
        assert result.uncertainty is not None
        now, untouched = self.corrections.labels, self.corrections.untouched
        labels = np.where(untouched, result.labels.array, now)
        uncertainty = np.where(untouched, result.uncertainty.array, np.float32(0))
        followed = self._followed(labels, share, evidence, result.device)
        followed.uncertainty = result.uncertainty.with_array(uncertainty)
        followed.notes += result.warnings
        followed.weights = weights
        return followed

    def _unchanged(self, evidence: Evidence, why: str) -> Followed:
        followed = self._followed(self.corrections.labels.copy(), 0.0, evidence, describe(self.segmenter.device))
        followed.notes.append(why)
        return followed

    def _followed(self, labels: np.ndarray, share: float, evidence: Evidence, device: str) -> Followed:
        volume, bundle = self.volume, self.segmenter.bundle
        volumes = volumes_ml(self.corrections.known, labels, bundle, volume)
        return Followed(
            labels=Volume(labels, volume.ijk_to_ras, source=volume.source),
            uncertainty=None,
            certain=self.corrections.certain,
            volumes_ml=volumes.present,
            added_ml=volumes.added,
            removed_ml=volumes.removed,
            share=share,
            wrong={f"{place:g}": count for place, count in evidence.wrong.items()},
            corrections=str(self.corrections),
            steps=self.steps,
            seconds=time.perf_counter() - self.started,
            device=device,
        )


def _weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _network_voxels(volume: Volume, segmenter: Segmenter) -> int:
    """Of all that the network sees of a volume, its padding included."""
    settings = segmenter.bundle.preprocessing
    change = model_axes(volume, settings)
    size = [max(n, most) for n, most in zip(model_size(volume, settings, change), settings.patch_size, strict=True)]
    slices = volume.spatial_shape[2 - change.order[2]] if settings.spatial_dims == 2 else 1
    return slices * int(np.prod(size))
