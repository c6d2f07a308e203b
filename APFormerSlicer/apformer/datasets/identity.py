"""Who a case is of, without naming anyone, and what it shows, whatever the file.

A patient's identity (an ID, a part of a file name) is kept only as a salted, slow hash. That is a pseudonym: whoever
has both the salt and the list of possible IDs can try them all, so the salt is never exported.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import ConfigError, InputError
from ..volume import Volume

# RFC 7914 parameters that take tens of milliseconds and 16 MiB: enough to slow guessing down, not one import.
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}
_CHUNK_BYTES = 1 << 20
_FEWEST_GROUPS = 3


def new_salt() -> str:
    """128 random bits, hexadecimal."""
    return secrets.token_hex(16)


@lru_cache(maxsize=4096)
def patient_code(identity: str, salt: str) -> str:
    """The pseudonym of a patient: the same for the same identity in one data set, unrelated in any other.

    Case, blanks around and Unicode forms do not count, so that an ID typed in is the one in the DICOM header.
    """
    plain = " ".join(unicodedata.normalize("NFKC", identity).casefold().split())
    digest = hashlib.scrypt(plain.encode(), salt=bytes.fromhex(salt), dklen=8, **_SCRYPT)
    return f"p-{digest.hex()}"


def patient_share(code: str, salt: str) -> float:
    """A number from 0 to 1 that depends on the patient and the data set only."""
    digest = hmac.new(bytes.fromhex(salt), code.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def dicom_patient(volume: Volume, path: Path) -> str | None:
    """The patient ID in the DICOM header of what `volume` was read from; None when there is none."""
    if volume.source.kind != "dicom":
        return None
    from ..files.dicom.series import patient_of

    return patient_of(volume.source, path)


def name_patients(stems: Sequence[str], pattern: str | None = None) -> tuple[list[str], str | None]:
    """Whose file is each of `stems` (file names without format), and what to tell the user about it.

    With `pattern`, its group "patient", or else all that it matches, names the patient. Without one, files that share
    all of their name but what follows the last _ or - are taken as one patient's when that gives several groups of
    several files: a patient divided between training and validation would make every figure too good.

    Raises:
        ConfigError: the pattern is no regular expression, or does not match a name.
    """
    if pattern is not None:
        return [_matched(stem, pattern) for stem in stems], None
    beginnings = [re.sub(r"[_-][^_-]*$", "", stem) for stem in stems]
    groups = len(set(beginnings))
    if groups < _FEWEST_GROUPS or len(stems) < 1.5 * groups:
        return list(stems), None
    note = (
        f"{len(stems)} files were taken as those of {groups} patients, by their names up to the last _ or -; "
        "import with a patient pattern (.+ for one patient per file) where that is not so"
    )
    return beginnings, note


def _matched(stem: str, pattern: str) -> str:
    try:
        match = re.search(pattern, stem)
    except re.error as error:
        raise ConfigError(
            f"The patient pattern {pattern!r} is no regular expression ({error}).",
            "Which files belong to one patient is not known.",
            "Correct it; for example (?P<patient>[^_]+)_ takes what precedes the first _.",
        ) from error
    if match is None:
        raise ConfigError(
            f"The patient pattern {pattern!r} does not match {stem}.",
            "Whose image that is is not known.",
            "Correct the pattern so that it matches every file name.",
        )
    return match.groupdict().get("patient") or match.group(0)


def voxel_hash(volume: Volume) -> str:
    """SHA-256 of the voxel values, whatever their type on disk and the order of the axes; geometry apart.

    Slices are hashed one by one, so memory does not grow with the volume.
    """
    array = volume.oriented("RAS").array
    array = array if array.ndim == 4 else array[None]
    digest = hashlib.sha256(repr(array.shape).encode())
    for channel in array:
        for k in range(channel.shape[0]):
            digest.update(_canonical(channel[k]))
    return digest.hexdigest()


def _canonical(part: np.ndarray) -> bytes:
    """Whole numbers as int32, all others as float64, so that equal values give equal bytes."""
    if (part.dtype.kind in "bui" and part.dtype.itemsize < 4) or part.dtype == np.int32:
        return b"i" + np.ascontiguousarray(part, dtype="<i4").tobytes()
    exact = part.astype("<f8")
    whole = bool(np.all(np.abs(exact) < 2**31) and np.array_equal(exact, np.rint(exact)))
    return b"i" + exact.astype("<i4").tobytes() if whole else b"f" + (exact + 0.0).tobytes()


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of a file.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise InputError(
            f"{path} could not be read: {error.strerror or error}.",
            "Whether it is still the file that was added is not known.",
            "Restore it from a backup, or check the permissions.",
        ) from error
    return digest.hexdigest()
