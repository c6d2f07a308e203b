"""A trained model: what metadata.json and network.json say of it, and the network itself. Loading is strict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from . import weights
from .fields import Fields, malformed, parse_json
from .labels import HIGHEST_LABEL, Label, check_labels
from .manifest import CARD, METADATA, NETWORK, WEIGHTS, Manifest, read_manifest, refused
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
MODALITIES = ("CT", "MR", "RGB")
MOST_CHANNELS = 64
# What networks accept as sizes, counts and options; far above any real one, so that a hostile file cannot ask for more.
_LARGEST_ARGUMENT = 1 << 20
_LONGEST_ARGUMENT = 4096
_DEEPEST_ARGUMENT = 6
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_WINDOWS_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_VERSION = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}(?:[-+][A-Za-z0-9.+-]{1,40})?")


@dataclass(frozen=True)
class Bundle:
    """A verified model. Output channel 0 of its network is background, channel n + 1 is `labels[n]`.

    Attributes:
        modality: "CT", "MR" or "RGB"; `channels`: image channels.
        metadata: metadata.json as it stands, for what the fields here leave out (metrics, licence, training,
            parent_version).
        checksum: SHA-256 of the SHA256SUMS file, which identifies the exact model in provenance.
    """

    directory: Path
    name: str
    version: str
    description: str
    modality: str
    channels: int
    labels: tuple[Label, ...]
    preprocessing: Preprocessing
    network_name: str
    network_arguments: dict[str, Any]
    metadata: dict[str, Any]
    checksum: str

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self.manifest().read(CARD).decode("utf-8", errors="replace")

    def build_network(self) -> torch.nn.Module:
        """The network with its weights: float32, evaluation mode, on the CPU.

        Raises:
            BundleError: the files changed since the bundle was loaded, or no longer fit together.
        """
        state = weights.unpack(self.manifest().read(WEIGHTS))
        return weights.build(state, self.network_name, self.network_arguments)

    def manifest(self) -> Manifest:
        """The bundle's files; BundleError when they are no longer those that were loaded."""
        manifest = read_manifest(self.directory)
        if manifest.checksum != self.checksum:
            raise refused(f"The model in {self.directory} was changed after it was loaded.")
        return manifest


def load_bundle(directory: str | Path) -> Bundle:
    """Read and verify the bundle in `directory`: files, checksums, description, network arguments, and every weight.

    Nothing in a bundle is executed or unpickled; the network is one of those registered in `apformer.networks`.

    Raises:
        BundleError: anything is missing, altered, malformed or does not fit together; the text says what.
    """
    directory = Path(directory).expanduser().absolute()
    manifest = read_manifest(directory)
    contents = {path: manifest.read(path) for path in manifest.digests}
    metadata = parse_json(contents[METADATA], METADATA)
    network = Fields(parse_json(contents[NETWORK], NETWORK), NETWORK)
    network.only(("name", "arguments"))
    bundle = _from_fields(Fields(metadata, METADATA), network, manifest)
    weights.check_fit(weights.unpack(contents[WEIGHTS]), bundle.network_name, bundle.network_arguments)
    return bundle


def _from_fields(fields: Fields, network: Fields, manifest: Manifest) -> Bundle:
    _check_format(fields)
    for name in ("metrics", "training", "network_data_format"):
        fields.section(name)
    fields.text("data_licence")
    labels = [
        Label.from_fields(Fields(item, f"{METADATA}, labels[{place}]"))
        for place, item in enumerate(fields.items("labels", HIGHEST_LABEL))
    ]
    bundle = Bundle(
        directory=manifest.directory,
        name=check_name(fields.text("name", 64)),
        version=check_version(fields.text("version", 64)),
        description=fields.text("description"),
        modality=fields.text("modality"),
        channels=fields.integer("channels", 1, MOST_CHANNELS),
        labels=check_labels(labels),
        preprocessing=Preprocessing.from_dict(fields.value("preprocessing"), f"{METADATA}, 'preprocessing'"),
        network_name=network.text("name", 64),
        network_arguments=network.section("arguments").data,
        metadata=fields.data,
        checksum=manifest.checksum,
    )
    check_consistent(bundle.modality, bundle.channels, bundle.labels, bundle.preprocessing, bundle.network_arguments)
    return bundle


def _check_format(fields: Fields) -> None:
    version = fields.integer("format_version", 1, 1_000_000)
    if version > FORMAT_VERSION:
        raise BundleError(
            f"The model is written in format {version}; this program reads up to format {FORMAT_VERSION}.",
            "The model was made by a newer version of this program.",
            "Update this program, or choose an older version of the model.",
        )


def check_name(name: str) -> str:
    """`name` when it can be a model's name and a folder's name on every system; BundleError otherwise."""
    if not _NAME.fullmatch(name) or ".." in name or _WINDOWS_DEVICES.fullmatch(name):
        raise BundleError(
            f"'{name[:80]}' cannot be the name of a model.",
            "A name is also a folder's name: up to 64 letters, digits, '-', '_' and single '.', nothing else.",
            "Choose a name such as 'liver-ct'.",
        )
    return name


def check_version(version: str) -> str:
    """`version` when it is written as 1.2.3 or 1.2.3-suffix; BundleError otherwise."""
    if not _VERSION.fullmatch(version):
        raise malformed(f"'{version[:80]}' is not a version such as 1.0.0.")
    return version


def check_consistent(
    modality: str, channels: int, labels: tuple[Label, ...], preprocessing: Preprocessing, arguments: Mapping[str, Any]
) -> None:
    """Refuse a description whose parts contradict each other, or network arguments beyond any reasonable size.

    Networks follow MONAI's names; an argument that a network does not have is not compared.
    """
    if modality not in MODALITIES:
        raise malformed(f"The modality must be one of {', '.join(MODALITIES)}.")
    if modality == "RGB" and channels != 3:
        raise malformed(f"An RGB model has 3 channels, not {channels}.")
    _check_arguments(dict(arguments), 0)
    described = {
        "spatial_dims": preprocessing.spatial_dims,
        "in_channels": channels,
        "out_channels": len(labels) + 1,
    }
    for name, value in described.items():
        if arguments.get(name, value) != value:
            raise malformed(f"The network has {name} = {arguments[name]}, the description says {value}.")


def _check_arguments(value: object, depth: int) -> None:
    if depth > _DEEPEST_ARGUMENT:
        raise malformed("The network's arguments are nested too deeply.")
    if isinstance(value, (str, list, tuple, dict)) and len(value) > _LONGEST_ARGUMENT:
        raise malformed("One of the network's arguments is too long.")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_arguments(item, depth + 1)
    elif isinstance(value, (int, float)) and not abs(value) <= _LARGEST_ARGUMENT:
        raise malformed("One of the network's arguments is out of range.")
