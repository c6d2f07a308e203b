"""Write a trained model as a bundle, all or nothing, and prove that it loads before it takes its place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from . import weights
from .bundle import FORMAT_VERSION, Bundle, check_consistent, check_name, check_version, load_bundle
from .fields import malformed
from .labels import Label, check_labels
from .manifest import CARD, CHECKSUMS, METADATA, NETWORK, WEIGHTS, refused, size_limit, write_checksums
from .preprocessing import Preprocessing
from .swap import put_in_place, staging

if TYPE_CHECKING:
    import torch

# The schema that current MONAI model-zoo bundles name; it lists the fields that `_monai_fields` fills.
MONAI_SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
# Written when MONAI is not installed (inference does not need it): the version whose conventions are followed.
MONAI_CONVENTIONS = "1.4.0"
_PNG_START = b"\x89PNG\r\n\x1a\n"


def save_bundle(
    directory: str | Path,
    *,
    name: str,
    version: str,
    description: str,
    modality: str,
    channels: int,
    labels: Sequence[Label],
    preprocessing: Preprocessing,
    network_name: str,
    network_arguments: Mapping[str, Any],
    state_dict: Mapping[str, torch.Tensor],
    card: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data_licence: str,
    pictures: Mapping[str, Path] | None = None,
    parent_version: str | None = None,
    authors: str = "APFormerSlicer contributors",
) -> Bundle:
    """Write a bundle to `directory`, replacing a bundle that is there; on any failure the old one stays as it was.

    Args:
        labels: in the order of the network's output channels, background left out.
        state_dict: the network's weights; floating-point ones are stored in fp16.
        card: the model card, Markdown. `training`: how it was trained. `metrics`: on the named validation cases.
        pictures: file name in docs/ ("overlay.png") -> PNG file to copy.
        parent_version: the model this one was fine-tuned from, e.g. "liver-ct 1.0.0".

    Raises:
        BundleError: the parts do not fit together, or a value cannot be stored.
        OutputError: the folder cannot be written, the disk is full, or something other than a bundle is in its place.
    """
    target = Path(directory).expanduser().absolute()
    labels = check_labels(labels)
    check_consistent(modality, channels, labels, preprocessing, network_arguments)
    _check_replaceable(target)
    described = {
        "format_version": FORMAT_VERSION,
        "name": check_name(name),
        "version": check_version(version),
        "description": description,
        "modality": modality,
        "channels": channels,
        "labels": [label.as_dict() for label in labels],
        "preprocessing": preprocessing.as_dict(),
        "metrics": dict(metrics),
        "data_licence": data_licence,
        "training": dict(training),
        "parent_version": parent_version,
    }
    files = {
        METADATA: _json({**_monai_fields(modality, channels, labels, preprocessing), **described, "authors": authors}),
        NETWORK: _json({"name": network_name, "arguments": dict(network_arguments)}),
        WEIGHTS: weights.pack(state_dict),
        CARD: card.encode("utf-8"),
    }
    for picture, source in (pictures or {}).items():
        files[f"docs/{picture}"] = _png(picture, Path(source))
    with staging(target) as stage:
        for path, content in files.items():
            _write(stage, path, content)
        write_checksums(stage)
        load_bundle(stage).build_network()
        put_in_place(stage, target)
    return load_bundle(target)


def _check_replaceable(target: Path) -> None:
    """Only a bundle or an empty folder is ever replaced: a mistyped path must not cost the user other files."""
    if target.is_symlink() or target.is_file():
        usable = False
    elif target.is_dir():
        is_bundle = (target / METADATA).is_file() and (target / CHECKSUMS).is_file()
        usable = is_bundle or not any(target.iterdir())
    else:
        usable = True
    if not usable:
        raise OutputError(
            f"{target} is not a model.",
            "Saving there would replace other files, so nothing was written.",
            "Choose a new or empty folder.",
        )


def _write(stage: Path, path: str, content: bytes) -> None:
    if len(content) > size_limit(path):
        raise refused(f"{path} would be larger than {size_limit(path)} bytes.")
    (stage / path).parent.mkdir(exist_ok=True)
    (stage / path).write_bytes(content)


def _json(data: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n").encode("utf-8")
    except (TypeError, ValueError) as error:
        raise malformed(f"The model's description cannot be written as JSON ({error}).") from error


def _plain(value: object) -> object:
    """Numpy scalars and arrays as Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _png(name: str, source: Path) -> bytes:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise OutputError(
            f"The picture {source} cannot be read ({error.strerror}).",
            "It was to go into the model's folder, so the model was not saved.",
            "Check the path, or save without it.",
        ) from error
    if not name.endswith(".png") or not content.startswith(_PNG_START):
        raise refused(f"The picture {source} is not a PNG file with a name ending in .png.")
    return content


def _monai_fields(
    modality: str, channels: int, labels: Sequence[Label], preprocessing: Preprocessing
) -> dict[str, Any]:
    """The fields that MONAI's metadata schema requires beyond name, version and description."""
    names = ", ".join(label.name for label in labels)
    value_range = [0.0, 1.0] if preprocessing.intensity["kind"] == "window" else []
    shape = list(preprocessing.patch_size)
    tensor = {"type": "image", "spatial_shape": shape, "dtype": "float32", "is_patch_data": True}
    image = {
        "format": "hounsfield" if modality == "CT" else "magnitude",
        "modality": modality,
        "num_channels": channels,
        "value_range": value_range,
        "channel_def": {str(channel): "image" for channel in range(channels)},
    }
    prediction = {
        "format": "labels",
        "num_channels": len(labels) + 1,
        "value_range": [],
        "channel_def": {"0": "background"} | {str(place): label.name for place, label in enumerate(labels, 1)},
    }
    return {
        "schema": MONAI_SCHEMA,
        "monai_version": _installed("monai", MONAI_CONVENTIONS),
        "pytorch_version": _installed("torch", "unknown"),
        "numpy_version": _installed("numpy", "unknown"),
        "required_packages_version": {"safetensors": _installed("safetensors", "unknown")},
        "task": f"Segmentation of {names} in {modality} images",
        "copyright": "The authors; see the licence of the training data",
        "intended_use": "Research and education; not a medical device",
        "network_data_format": {"inputs": {"image": tensor | image}, "outputs": {"pred": tensor | prediction}},
    }


def _installed(package: str, otherwise: str) -> str:
    from importlib import metadata  # which loads a reader of e-mails

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return otherwise
