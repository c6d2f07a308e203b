"""How much one session may keep: counted while files are written, given back when they are removed.

The size in an archive's directory, or in a request's header, is what somebody says; only what is written counts.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from apformer.errors import InputError
from apformer.memory import in_words

MOST_FILES = 20_000  # of a session; a whole study of thin slices has some thousands
_LEAST_BYTES = 4096  # that a file takes on the disk, however small
# While an image is read, its packed bytes, its voxels and one conversion of these are held.
_WHILE_READING = 4


@dataclass
class Quota:
    """Bytes and files of one session; `take` may be called in any thread.

    Attributes:
        most_bytes: on disk, and for the voxels of images that are loaded.
    """

    most_bytes: int
    _bytes: int = 0
    _files: int = 0
    _voxel_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int, files: int = 0) -> None:
        """Raises InputError when it is more than is left; then nothing was taken."""
        with self._lock:
            if self._bytes + size > self.most_bytes or self._files + files > MOST_FILES:
                raise self._full()
            self._bytes, self._files = self._bytes + size, self._files + files

    def give_back(self, size: int, files: int = 0) -> None:
        with self._lock:
            self._bytes, self._files = self._bytes - size, self._files - files

    def hold(self, voxel_bytes: int) -> None:
        """An image of that size was loaded. Raises InputError when it is more than is left."""
        with self._lock:
            if self._voxel_bytes + voxel_bytes > self.most_bytes:
                raise self._full()
            self._voxel_bytes += voxel_bytes

    def release(self, voxel_bytes: int) -> None:
        with self._lock:
            self._voxel_bytes -= voxel_bytes

    @property
    def reading_bytes(self) -> int:
        """How much memory a reader may take for the next image."""
        with self._lock:
            return _WHILE_READING * (self.most_bytes - self._voxel_bytes)

    def _full(self) -> InputError:
        return InputError(
            f"The upload is larger than what is left of this session's {in_words(self.most_bytes)}.",
            f"All images of a session together may have {in_words(self.most_bytes)}, unpacked, in {MOST_FILES} files; "
            "nothing of this upload was kept.",
            "Close images that you do not need any more, upload one series at a time, or ask for a larger --upload-mb.",
        )


class Upload:
    """A folder with the files of one upload, which goes when nothing that came from it is open any more."""

    def __init__(self, folder: Path, quota: Quota) -> None:
        self.folder = folder
        self._quota = quota
        self._bytes = self._files = 0
        self._users: set[str] = set()

    def begin_file(self) -> None:
        """A file will be written. Raises InputError when there is no room for it."""
        self._take(_LEAST_BYTES, 1)

    def count(self, size: int) -> None:
        """So many bytes will be written. Raises InputError when there is no room for them."""
        self._take(size, 0)

    def _take(self, size: int, files: int) -> None:
        self._quota.take(size, files)
        self._bytes, self._files = self._bytes + size, self._files + files

    def forget_file(self, path: Path) -> None:
        """Remove one file that is not needed any more."""
        size = path.stat().st_size
        path.unlink()
        self._give_back(size + _LEAST_BYTES, 1)

    def use(self, user: str) -> None:
        """`user`, such as a node's ID, needs the files."""
        self._users.add(user)

    def leave(self, user: str) -> None:
        """`user` does not need the files any more; the last one to leave removes them."""
        if user in self._users:
            self._users.remove(user)
            if not self._users:
                self.remove()

    @property
    def in_use(self) -> bool:
        return bool(self._users)

    def remove(self) -> None:
        """Remove the folder and give back what it took."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._give_back(self._bytes, self._files)

    def _give_back(self, size: int, files: int) -> None:
        self._quota.give_back(size, files)
        self._bytes, self._files = self._bytes - size, self._files - files
