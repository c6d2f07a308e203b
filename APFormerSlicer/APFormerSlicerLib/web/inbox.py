"""Where uploaded files arrive: under names that are safe on every system, in one folder, within the session's quota."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath

from .quota import Upload

_LONGEST_NAME = 120  # characters; of a longer one the end stays, which says the format
_LONGEST_BYTES = 200  # of a name in UTF-8: file systems take 255
_DEEPEST = 4  # folders
_REFUSED = re.compile(r'[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]')
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)")


class Inbox:
    """Attributes: upload: the folder, and what it counts. files: what arrived, in that order."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.files: list[Path] = []
        self._taken: set[str] = set()  # files, and their folders: without regard to case, as on some file systems
        self._folders: set[str] = set()
        self._same: dict[str, int] = {}  # path -> how many others had it

    def open(self, name: str) -> Arrival:
        """A new file, written piece by piece. Raises InputError when there is no room."""
        self.upload.begin_file()
        path = self._place(safe_parts(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(path)
        return Arrival(path, self.upload)

    def drop(self, path: Path) -> None:
        """Remove a file that arrived."""
        self.files.remove(path)
        self.upload.forget_file(path)

    def _place(self, parts: list[str]) -> Path:
        """A path that no other file has; files of one name get folders of their own."""
        first = _key(parts)
        tried = parts
        while self._is_taken(_key(tried)):
            self._same[first] = self._same.get(first, 0) + 1
            tried = [f"same-name-{self._same[first]}", *parts]
        self._taken.add(_key(tried))
        self._folders.update(_parents(_key(tried)))
        return self.upload.folder.joinpath(*tried)

    def _is_taken(self, key: str) -> bool:
        return key in self._taken or key in self._folders or any(parent in self._taken for parent in _parents(key))


class Arrival:
    """A file that is being written. `write` raises InputError when there is no room for more."""

    def __init__(self, path: Path, upload: Upload) -> None:
        self.path = path
        self._upload = upload
        self._stream = path.open("xb")

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, chunk: bytes) -> None:
        self._upload.count(len(chunk))
        self._stream.write(chunk)


def safe_parts(name: str) -> list[str]:
    """A file's path below the chosen folder, without what leads elsewhere and what file systems refuse."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "//", "..", ".")]
    cleaned = [_safe_part(part) for part in parts[-_DEEPEST:]]
    return [part for part in cleaned if part] or ["file"]


def _safe_part(part: str) -> str:
    """Of a name that is too long, the end; Windows' devices and trailing blanks and full stops are no names there."""
    cleaned = _REFUSED.sub("_", part)[-_LONGEST_NAME:].strip(" ").rstrip(" .")
    while len(cleaned.encode()) > _LONGEST_BYTES:
        cleaned = cleaned[1:]
    return f"_{cleaned}" if _DEVICE.match(cleaned) else cleaned.strip(" ")


def _key(parts: list[str]) -> str:
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


def _parents(path: str) -> list[str]:
    """ "a/b/c" -> a, a/b"""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
