"""A bundle as a zip file, out and in.

A zip may come from anywhere: it is checked entry by entry before a byte is written.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import BundleError
from .bundle import Bundle
from .manifest import CHECKSUMS, LARGEST_WEIGHTS_BYTES, MOST_FILES, WEIGHTS, is_litter, shows_cases, size_limit
from .swap import unwritable

LARGEST_TOTAL_BYTES = LARGEST_WEIGHTS_BYTES + (64 << 20)
# Text compresses about tenfold, trained weights hardly at all; a zip bomb reaches a thousand.
HIGHEST_RATIO = 200
_RATIO_MATTERS_FROM_BYTES = 1 << 20
_MOST_ENTRIES = 4 * MOST_FILES  # room for folders and what file managers add
_BLOCK = 1 << 20
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the same bundle always gives the same zip


def _unusable(what: str) -> BundleError:
    return BundleError(
        what,
        "The file may be damaged or made to do harm, so nothing was imported.",
        "Ask for the model again, as a zip file that this program exported.",
    )


def write_archive(bundle: Bundle, path: Path, pictures: bool = False) -> Path:
    """Write the bundle to the zip file `path`, atomically; in a folder, the file is named <name>-<version>.zip.

    Args:
        pictures: whether pictures of cases go with it. They are of patients, who were not asked.

    Returns: the path of the zip.

    Raises:
        BundleError: the bundle is not as it was when it was loaded.
        OutputError: the file cannot be written.
    """
    from ..files.atomic import atomic_path

    path = Path(path).expanduser().absolute()
    if path.is_dir():
        path = path / f"{bundle.name}-{bundle.version}.zip"
    manifest = bundle.manifest()
    names = [name for name in sorted(manifest.digests) if pictures or not shows_cases(name)]
    sums = "".join(f"{manifest.digests[name]}  {name}\n" for name in names).encode()
    complete = len(names) == len(manifest.digests)
    contents = {name: manifest.read(name) for name in names} | {CHECKSUMS: manifest.sums if complete else sums}
    if not path.parent.is_dir():  # a mistyped folder is not made
        raise unwritable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(f"{bundle.name}/{name}", _FIXED_DATE)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def extract_archive(path: Path, into: Path) -> None:
    """Unpack the bundle in the zip file `path` into the empty folder `into`, without its top folder.

    Only entries that a bundle may have are written, each within its size limit. The content is verified later, by
    `load_bundle`.

    Raises:
        BundleError: not a zip, encrypted, damaged, a path that leads elsewhere, a link, too large, or not a bundle.
    """
    try:
        with _open(path) as file, zipfile.ZipFile(file) as archive:
            for name, entry in _check_entries(archive.infolist()).items():
                (into / name).parent.mkdir(exist_ok=True)
                _extract(archive, entry, into / name, size_limit(name))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _unusable(f"{path} is not a complete zip file ({error}).") from error


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        what = f"The file {path} cannot be read ({error.strerror})."
        raise BundleError(what, "Nothing was imported.", "Check the path.") from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Path in the bundle -> entry, for the files of a zip that holds one bundle and nothing else."""
    if len(entries) > _MOST_ENTRIES:
        raise _unusable(f"The zip file has more than {_MOST_ENTRIES} entries.")
    for entry in entries:
        _check_entry(entry)
    files = [entry for entry in entries if not entry.is_dir() and not _is_litter(entry.filename)]
    tops = {entry.filename.partition("/")[0] for entry in files}
    nested = len(tops) == 1 and all("/" in entry.filename for entry in files)
    by_path: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        name = entry.filename.partition("/")[2] if nested else entry.filename
        if entry.file_size > size_limit(name):
            raise _unusable(f"'{name}' in the zip file is larger than {size_limit(name)} bytes.")
        if name.lower() in (known.lower() for known in by_path):
            raise _unusable(f"'{name}' is in the zip file twice.")
        by_path[name] = entry
    if not by_path:
        raise _unusable("The zip file contains no model.")
    if sum(entry.file_size for entry in files) > LARGEST_TOTAL_BYTES:
        raise _unusable(f"The zip file unpacks to more than {LARGEST_TOTAL_BYTES} bytes.")
    return by_path


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename  # `filename` is already cut at a NUL and, on Windows, has its separators changed
    parts = PurePosixPath(name).parts
    if not name or "\\" in name or "\0" in name or ":" in name or name.startswith("/") or ".." in parts:
        raise _unusable(f"The zip file has the unsafe path '{name[:120]}'.")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unusable(f"'{name[:120]}' in the zip file is a link or a device.")
    if entry.flag_bits & 0x1:
        raise _unusable(f"'{name[:120]}' in the zip file is encrypted.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unusable(f"'{name[:120]}' in the zip file is compressed in an unusual way.")
    if entry.file_size > max(_RATIO_MATTERS_FROM_BYTES, HIGHEST_RATIO * entry.compress_size):
        raise _unusable(f"'{name[:120]}' in the zip file unpacks to more than {HIGHEST_RATIO} times its size.")


def _is_litter(name: str) -> bool:
    return name.startswith("__MACOSX/") or is_litter(name.rpartition("/")[2])


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limit: int) -> None:
    written = 0
    with archive.open(entry) as source, open(target, "wb") as sink:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > limit:  # the size in the zip's directory may lie
                raise _unusable(f"'{target.name}' in the zip file is larger than it says.")
            sink.write(block)
