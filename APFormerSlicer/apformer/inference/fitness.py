"""Whether a volume suits a model: what must be refused, and what deserves a warning."""

from __future__ import annotations

import numpy as np

from ..bundles import Bundle
from ..errors import InputError
from ..volume import Volume, check_image

FIELD_OF_VIEW_TOLERANCE = 1.6  # inputs beyond this many times the training images' extent get a warning
AIR_BELOW = -200  # only CT stores such values: air and fat in Hounsfield units
MISSING_OFFSET_ABOVE = 1500  # unsigned CT without its -1024 offset reaches this; Hounsfield tissue rarely does


def check_fit(volume: Volume, bundle: Bundle) -> list[str]:
    """Warnings about using `bundle` on `volume`.

    Raises:
        InputError: the image cannot be segmented at all, or not by this model.
    """
    check_image(volume)
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
    return [*_modality_warnings(volume, bundle), *_field_of_view_warnings(volume, bundle)]


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
    lowest, highest = float(sample.min()), float(np.percentile(sample, 99))
    if bundle.modality == "MR" and lowest < AIR_BELOW:
        return [
            f"The values (down to {lowest:g}) look like CT, the model {bundle.name} was trained on MR: "
            "do not rely on the result."
        ]
    if bundle.modality == "CT" and lowest >= 0 and highest > MISSING_OFFSET_ABOVE:
        return [
            "The values have no negatives and look as if the Hounsfield offset (-1024) were missing: check the result."
        ]
    return []


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
