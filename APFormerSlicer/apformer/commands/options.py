"""Options that several commands share, checked for form before any work starts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

MODEL = "NAME[@VERSION]|DIR"  # how a model is named: the active version, an exact one, or a folder
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
_VOXEL_RANGES = re.compile(r"-?\d+:-?\d+(,-?\d+:-?\d+){2}")
_BOUNDS_MM = re.compile(rf"{_NUMBER}(,{_NUMBER}){{5}}")

# Maps of numbers from 0 to 1 that can be written beside a label map, and what they show. A name is also that of the
# Segmenter's argument, of its result and of the report's entry.
MAPS = {
    "uncertainty": "the uncertainty (0 to 1)",
    "kept_tokens": "where the network looked (1) and where pruning spared it (0)",
}


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, whose presence on this computer is found out later."""
    parser.add_argument(
        "--device", type=_device, default="auto", help="auto (default), cpu, cuda, cuda:N or mps", metavar="DEVICE"
    )


def add_dicom(parser: argparse.ArgumentParser) -> None:
    """--series and --skip: which files of a DICOM folder are the image."""
    parser.add_argument(
        "--series", metavar="UID", help="which series of a DICOM folder that holds several, or which volume: UID#2"
    )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="FILE",
        help="leave this file of a DICOM folder out: a name, a path or a pattern; can be repeated",
    )


def map_option(name: str) -> str:
    """The option that asks for the map `name`."""
    return f"--{name.replace('_', '-')}"


def add_maps(parser: argparse.ArgumentParser) -> None:
    """An option for each of `MAPS`."""
    for name, shown in MAPS.items():
        parser.add_argument(map_option(name), type=path, metavar="OUT", help=f"also write {shown}: a file, or a folder")


def maps(options: argparse.Namespace) -> dict[str, Path]:
    """The maps asked for, by name, and where they go."""
    return {name: getattr(options, name) for name in MAPS if getattr(options, name) is not None}


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """--threshold, for masks that were saved as pictures with losses."""
    parser.add_argument(
        "--threshold", action="store_true", help="of a mask saved as picture (JPEG), take what is at least half white"
    )


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:N, mps")
    return text


def roi(text: str) -> str:
    """The text of --roi without blanks, when it has the form of a region; it is placed in each image later."""
    compact = "".join(text.split())
    if not (_VOXEL_RANGES.fullmatch(compact) or _BOUNDS_MM.fullmatch(compact)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither i0:i1,j0:j1,k0:k1 (voxels) nor r0,r1,a0,a1,s0,s1 (RAS bounds in mm)"
        )
    return compact


def path(text: str) -> Path:
    """A path, with ~ for the home folder."""
    if not text:
        raise argparse.ArgumentTypeError("a path may not be empty")
    return Path(text).expanduser()


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
