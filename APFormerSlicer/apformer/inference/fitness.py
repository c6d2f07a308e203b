"""Whether a volume suits a model: what must be refused, and what deserves a warning."""

from __future__ import annotations

import numpy as np

from ..bundles import Bundle
from ..errors import InputError
from ..hounsfield import doubtful_ct
from ..volume import Volume, check_image

FIELD_OF_VIEW_TOLERANCE = 1.6  # inputs beyond this many times the training images' extent get a warning
AIR_BELOW = -200  # only CT stores such values: air and fat in Hounsfield units
# A model of CT whose window is narrower was trained on values scaled to a small range, one whose window begins higher
# on stored values: neither expects Hounsfield units.
_NARROWEST_HU_WINDOW, _HIGHEST_HU_WINDOW = 20.0, 800.0


def check_fit(volume: Volume, bundle: Bundle, whole: Volume | None = None) -> list[str]:
    """Warnings about using `bundle` on `volume`.

    Args:
        whole: the image that `volume` was cut out of, if it was; its values and extent are judged.

    Raises:
        InputError: the image cannot be segmented at all, or not by this model.
    """
    check_image(volume, whole=whole)
    name = volume.source.title
    if volume.channels != bundle.channels:
        raise InputError(
            f"{name} has {volume.channels} channels; the model {bundle.name} expects {bundle.channels}.",
            "The network cannot read it.",
            "Choose a model for this kind of image, or convert the image "
            + ("to gray." if bundle.channels == 1 else "to the channels the model expects."),
        )
    if bundle.preprocessing.spatial_dims == 3 and min(volume.spatial_shape) == 1:
        raise InputError(
            f"{name} is a single slice; the model {bundle.name} works on volumes.",
            "The network needs neighbouring slices.",
            "Choose a 2D model, or pass the whole volume.",
        )
    seen = volume if whole is None else whole  # a crop may hold no air, or nothing but bone
    return [*_modality_warnings(seen, bundle), *_field_of_view_warnings(volume, bundle)]


def _modality_warnings(volume: Volume, bundle: Bundle) -> list[str]:
    if volume.modality and volume.modality != bundle.modality:
        return [
            f"The image is {volume.modality}, the model {bundle.name} was trained on {bundle.modality}: "
            "do not rely on the result."
        ]
    if volume.source.kind == "picture":
        return []
    sample = volume.array.reshape(-1)
    sample = sample[:: max(1, sample.size // 100_000)]
    lowest = float(sample.min(where=np.isfinite(sample), initial=0))
    if bundle.modality == "MR" and lowest < AIR_BELOW:
        return [
            f"The values (down to {lowest:g}) look like CT, the model {bundle.name} was trained on MR: "
            "do not rely on the result. Choose a model for CT."
        ]
    if _expects_hounsfield(bundle) and volume.channels == 1:
        doubt = doubtful_ct(volume)
        return [doubt] if doubt is not None else []
    return []


def _expects_hounsfield(bundle: Bundle) -> bool:
    intensity = bundle.preprocessing.intensity
    if bundle.modality != "CT" or intensity["kind"] != "window":  # percentiles are of each image: an offset is nothing
        return False
    lower, upper = float(intensity["lower"]), float(intensity["upper"])
    return upper - lower > _NARROWEST_HU_WINDOW and lower < _HIGHEST_HU_WINDOW


def _field_of_view_warnings(volume: Volume, bundle: Bundle) -> list[str]:
    expected = bundle.preprocessing.field_of_view_mm
    if expected is None:
        return []
    extent = [n * s for n, s in zip(reversed(volume.spatial_shape), volume.spacing_ijk, strict=True)]
    if all(have <= FIELD_OF_VIEW_TOLERANCE * want for have, want in zip(sorted(extent), sorted(expected), strict=True)):
        return []
    return [
        "The image covers {} mm; the model {} was trained on crops of about {} mm: "
        "give a region of interest around the structure, or expect false findings elsewhere.".format(
            " x ".join(f"{v:.0f}" for v in extent), bundle.name, " x ".join(f"{v:.0f}" for v in expected)
        )
    ]
