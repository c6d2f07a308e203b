"""A training's state on disk: replaced only by a whole new one, read without executing anything."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import OutputError
from ..files import atomic_path

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


def save_checkpoint(folder: Path, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the state, then the log; the old checkpoint stays until the new one is whole.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    with atomic_path(folder / CHECKPOINT) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError as error:  # torch reports a failed write so, without the operating system's reason
            raise OutputError(
                f"The checkpoint in {folder} could not be written ({str(error).splitlines()[0]}).",
                "The training stopped; the checkpoint of the epoch before is unchanged.",
                "Make room on the disk, then continue with --resume.",
            ) from error
    with atomic_path(folder / LOG) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state as it was saved, on the CPU.

    Raises:
        OutputError: there is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets in a damaged file
        raise OutputError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}).",
            "The training cannot be continued from there.",
            "Restore the file from a backup; or delete it to begin this training again from its start.",
        ) from error


def _check_sums(path: Path) -> None:
    """Raises BadZipFile when a part differs from its checksum: torch.save writes them, torch.load ignores them."""
    with zipfile.ZipFile(path) as content:
        damaged = content.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
