"""The files of a bundle: which are allowed, how large they may be, and that each is what SHA256SUMS says.

Only data files in three folders, one level deep, are accepted: nothing that could be run or unpickled, no links, no
devices.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from .fields import LARGEST_JSON_BYTES

METADATA = "configs/metadata.json"
NETWORK = "configs/network.json"
WEIGHTS = "models/model.safetensors"
CARD = "docs/README.md"
CHECKSUMS = "SHA256SUMS"
REQUIRED = (METADATA, NETWORK, WEIGHTS, CARD)

MOST_FILES = 64
# Generous for the networks here (a few MiB in fp16) and for large published ones, yet it fits in memory.
LARGEST_WEIGHTS_BYTES = 1 << 30
_LARGEST_BY_SUFFIX = {
    "configs": {".json": LARGEST_JSON_BYTES},
    "models": {".safetensors": LARGEST_WEIGHTS_BYTES},
    "docs": {".md": 1 << 20, ".txt": 1 << 20, ".json": 1 << 20, ".csv": 4 << 20, ".png": 16 << 20},
}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")
# Pictures of cases that judged the model: at a site, of patients.
_PICTURES_OF_CASES = re.compile(r"docs/(overlay|worst).*\.png")
# Left by file managers that have shown the folder; never read, never exported.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}


def refused(what: str) -> BundleError:
    """The error for a bundle whose files are not as the format or their checksums say."""
    return BundleError(
        what,
        "The model may be damaged or altered, so it is not used.",
        "Fetch the model again from where it came from, or choose another model.",
    )


def shows_cases(path: str) -> bool:
    """Whether the bundle file `path` is a picture of images, not of curves."""
    return _PICTURES_OF_CASES.fullmatch(path) is not None


def is_litter(name: str) -> bool:
    """Whether a file of this name was left by a file manager and is to be passed over."""
    return name in _LITTER or name.startswith("._")


def size_limit(path: str) -> int:
    """The most bytes the bundle file `path` ("docs/README.md") may have.

    Raises:
        BundleError: a bundle has no such file: wrong folder, wrong suffix, or a name with separators, "..", or odd
            characters.
    """
    if path in (CHECKSUMS, "LICENSE"):
        return 1 << 18
    folder, _, name = path.partition("/")
    limits = _LARGEST_BY_SUFFIX.get(folder, {})
    suffix = Path(name).suffix
    if not _FILE_NAME.fullmatch(name) or ".." in name or suffix not in limits:
        raise refused(f"'{path[:120]}' is not a file that a model may contain.")
    return limits[suffix]


@dataclass(frozen=True)
class Manifest:
    """A bundle's files: `digests` maps each path to its SHA-256; `sums` is the content of SHA256SUMS."""

    directory: Path
    digests: dict[str, str]
    sums: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of SHA256SUMS, which stands for all files."""
        return hashlib.sha256(self.sums).hexdigest()

    def read(self, path: str) -> bytes:
        """The content of the file `path`; BundleError when it is missing, too large or not what SHA256SUMS says."""
        content = _read_limited(self.directory, path)
        if hashlib.sha256(content).hexdigest() != self.digests[path]:
            raise refused(f"The file {path} in {self.directory} differs from its checksum.")
        return content


def read_manifest(directory: Path) -> Manifest:
    """Check the set of files in `directory` against SHA256SUMS; contents are checked as they are read.

    Raises:
        BundleError: no such folder, a required file missing, a file that SHA256SUMS does not list, a link, a name or
            suffix that bundles do not have, too many files.
    """
    if not os.path.isdir(directory):  # unlike Path.is_dir, also false for names the system cannot have
        raise BundleError(
            f"There is no model at {directory}.",
            "A model is a folder with configs, models and docs in it.",
            "Check the path, or list the installed models and choose one by name.",
        )
    present = _scan(directory)
    for path in (CHECKSUMS, *REQUIRED):
        if path not in present:
            raise refused(f"The model in {directory} lacks the file {path}.")
    content = _read_limited(directory, CHECKSUMS)
    digests = _parse(content)
    for path in sorted(present - {CHECKSUMS} - set(digests)):
        raise refused(f"The file {path} in {directory} is not listed in {CHECKSUMS}.")
    for path in sorted(set(digests) - present):
        raise refused(f"The file {path} is listed in {CHECKSUMS} but missing from {directory}.")
    return Manifest(directory, digests, content)


def write_checksums(directory: Path) -> None:
    """Write SHA256SUMS over every file in `directory` (in the format of the sha256sum tool)."""
    lines = [
        f"{hashlib.sha256(_read_limited(directory, path)).hexdigest()}  {path}\n"
        for path in sorted(_scan(directory) - {CHECKSUMS})
    ]
    (directory / CHECKSUMS).write_bytes("".join(lines).encode("ascii"))


def _read_limited(directory: Path, path: str) -> bytes:
    limit = size_limit(path)
    try:
        with open(directory / path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise refused(f"The file {path} in {directory} cannot be read ({error.strerror}).") from error
    if len(content) > limit:
        raise refused(f"The file {path} in {directory} is larger than {limit} bytes.")
    return content


def _parse(content: bytes) -> dict[str, str]:
    digests: dict[str, str] = {}
    for line in content.decode("ascii", errors="replace").splitlines():
        match = _CHECKSUM_LINE.fullmatch(line)
        if not match or match[2] in digests or match[2] == CHECKSUMS:
            raise refused(f"{CHECKSUMS} has a line that is not one checksum and one file: '{line[:80]}'.")
        size_limit(match[2])  # refuses paths that lead elsewhere
        digests[match[2]] = match[1]
    return digests


def _scan(directory: Path) -> set[str]:
    """Paths of all files in a bundle folder, relative, with forward slashes."""
    found: set[str] = set()
    try:
        for entry in _plain_entries(directory):
            if not entry.is_dir():
                found.add(entry.name)
                continue
            for inner in _plain_entries(Path(entry.path)):
                found.add(f"{entry.name}/{inner.name}")
    except OSError as error:
        raise refused(f"The folder {directory} cannot be listed ({error.strerror}).") from error
    for path in found:
        size_limit(path)
    if len(found) > MOST_FILES:
        raise refused(f"The model in {directory} has more than {MOST_FILES} files.")
    return found


def _plain_entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in `folder`, litter left out; links are refused, since they may lead out of the bundle."""
    home = folder.resolve()
    with os.scandir(folder) as listing:
        entries: list[os.DirEntry[str]] = []
        for entry in listing:
            if len(entries) > MOST_FILES:
                raise refused(f"The folder {folder} has more than {MOST_FILES} files.")
            # resolve() also sees Windows junctions, which is_symlink() does not
            if entry.is_symlink() or Path(entry.path).resolve() != home / entry.name:
                raise refused(f"'{entry.name}' in {folder} is a link to another place.")
            if not (entry.is_file() or entry.is_dir()):
                raise refused(f"'{entry.name}' in {folder} is neither a file nor a folder.")
            if not is_litter(entry.name):
                entries.append(entry)
    return entries
