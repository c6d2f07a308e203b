"""dataset.json of Medical Segmentation Decathlon and nnU-Net folders: which files belong together, what labels mean.

Both write the same things in several ways, all of which are read: labels as value -> name or name -> value, numbers as
text or not; channels as "modality" or "channel_names"; images as listed pairs or found by nnU-Net's NAME_0000. A path
may not lead out of the folder, but what lies there may be a link: it is the user's own. What macOS leaves beside files
(._NAME, .DS_Store) is no data, also where a list was made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import suffix_of
from ..names import same
from .table import BACKGROUND

_LARGEST_JSON = 64 << 20
_LARGEST_VALUE = 65535
_MODALITIES = dict.fromkeys(("mri", "mr", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "flair", "pd"), "MR")
_MODALITIES["ct"] = "CT"


@dataclass(frozen=True)
class Pair:
    """An image (one file, or one per channel) and its label map; `stem` is its name there and is not kept.

    `labelled`: values of the structures that were outlined, the others being unknown; None where nothing is said.
    """

    stem: str
    images: tuple[Path, ...]
    labels: Path
    labelled: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Listing:
    """What dataset.json says.

    Attributes:
        pairs: in its order. names: label value -> name, without background; nnU-Net's "ignore" is among them.
        channels: what they are called, in their order. name, licence: one line each, where they are given.
    """

    pairs: tuple[Pair, ...]
    names: Mapping[int, str]
    channels: tuple[str, ...]
    name: str | None
    licence: str | None

    @property
    def modality(self) -> str | None:
        """ "CT" or "MR", for images of one channel that say so."""
        return _MODALITIES.get(self.channels[0].casefold()) if len(self.channels) == 1 else None


def read_listing(folder: Path) -> Listing:
    """What dataset.json in `folder` lists.

    Raises:
        ConfigError: no usable dataset.json, labels that are unions of others, or a path that leads out of the folder.
    """
    path = folder / "dataset.json"
    try:
        with path.open("rb") as stream:
            described = json.loads(stream.read(_LARGEST_JSON).decode("utf-8-sig"))
        names = _label_names(path, described.get("labels") or {})
        pairs = tuple(_pairs(folder, described))
        channels = described.get("modality") or described.get("channel_names") or {}
        called = channels.values() if isinstance(channels, Mapping) else channels
        text = {key: str(described[key])[:200] for key in ("name", "licence", "license") if described.get(key)}
        return Listing(
            pairs=pairs,
            names=names,
            channels=(called,) if isinstance(called, str) else tuple(str(channel) for channel in called),
            name=_one_line(text.get("name")),
            licence=_one_line(text.get("licence") or text.get("license")),
        )
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be used ({error}).",
            "Which images and labels belong together is not known.",
            "Point to a folder in Decathlon or nnU-Net layout: dataset.json, imagesTr, labelsTr; or import image and "
            "mask folders with `apformer dataset import-pairs`.",
        ) from error


def stem_of(path: Path) -> str:
    """The name without its format."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def is_litter(path: Path) -> bool:
    """Whether macOS left it there, or it is hidden."""
    return path.name.startswith(".")


def _label_names(path: Path, labels: Mapping[str, Any]) -> dict[int, str]:
    by_value = all(str(key).strip().isdigit() for key in labels)
    named = [(int(key), name) for key, name in labels.items()] if by_value else None
    if named is None:
        regions = [name for name, value in labels.items() if isinstance(value, list | tuple | Mapping)]
        if regions:
            raise ConfigError(
                f"{path} defines {', '.join(regions)} as unions of other labels.",
                "Here every voxel has one label.",
                "Write a dataset.json in which each label has one value of its own.",
            )
        named = [(_value(value), name) for name, value in labels.items() if not same(name, BACKGROUND)]
    names: dict[int, str] = {}
    for value, name in named:
        if not isinstance(name, str) or not 0 <= value <= _LARGEST_VALUE:
            raise ValueError(f"label {value} is called {name!r}")
        if value in names:
            raise ValueError(f"{names[value]!r} and {name!r} are both label {value}")
        if value:
            names[value] = name
    return names


def _value(value: object) -> int:
    """A label's value as a number or as text; ValueError for anything else."""
    number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    if number != int(number) or number < 0:
        raise ValueError(f"{value!r} is no value of a label")
    return int(number)


def _pairs(folder: Path, described: Mapping[str, Any]) -> Iterator[Pair]:
    if "training" in described:
        listed = [_listed(folder, item) for item in described["training"]]
    elif "dataset" in described:  # nnU-Net: any files, by case
        listed = [
            Pair(
                str(stem),
                tuple(_inside(folder, image) for image in item["images"]),
                _inside(folder, item["label"]),
                _labelled(item),
            )
            for stem, item in described["dataset"].items()
        ]
    else:
        listed = _found(folder, str(described["file_ending"]))
    for pair in listed:
        if not any(is_litter(path) for path in (*pair.images, pair.labels)):
            yield pair


def _listed(folder: Path, item: Mapping[str, Any]) -> Pair:
    image, labels, labelled = _inside(folder, item["image"]), _inside(folder, item["label"]), _labelled(item)
    if not image.exists() and not is_litter(image):  # nnU-Net conversions list NAME.nii.gz and store NAME_0000.nii.gz
        channels = _channel_files(image.parent, stem_of(image), suffix_of(image))
        if channels:
            return Pair(stem_of(image), channels, labels, labelled)
    return Pair(stem_of(image), (image,), labels, labelled)


def _labelled(item: Mapping[str, Any]) -> tuple[int, ...] | None:
    """What was outlined in a case that says so: "labelled", a list of label values."""
    values = item.get("labelled")
    if values is None:
        return None
    if not isinstance(values, list) or len(values) > _LARGEST_VALUE:
        raise ValueError("'labelled' is no list of label values")
    found = sorted({_value(value) for value in values} - {0})
    if found and found[-1] > _LARGEST_VALUE:
        raise ValueError(f"'labelled' names the label {found[-1]}")
    return tuple(found)


def _inside(folder: Path, name: str) -> Path:
    """The file of that name; ValueError when the name leads out of the folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name} lies outside the folder")
    return folder / name


def _found(folder: Path, ending: str) -> list[Pair]:
    labels = sorted(path for path in (folder / "labelsTr").iterdir() if path.name.endswith(ending))
    pairs = []
    for path in labels:
        stem = path.name[: -len(ending)]
        images = _channel_files(folder / "imagesTr", stem, ending)
        pairs.append(Pair(stem, images or (folder / "imagesTr" / f"{stem}_0000{ending}",), path))
    return pairs


def _channel_files(folder: Path, stem: str, ending: str) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    pattern = re.compile(re.escape(stem) + r"_\d{4}" + re.escape(ending))
    return tuple(sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name)))


def _one_line(text: str | None) -> str | None:
    return None if text is None else "".join(character for character in text if character.isprintable())
