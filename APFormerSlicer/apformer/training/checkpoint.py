"""A training's state on disk: replaced only by a whole new one, read as data.

One safetensors file. Its tensors are numbered, and its metadata hold the state as JSON, in which a tensor is named by
its number and the order of its axes in memory, and a SHA-256 of both: safetensors itself has no checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from ..files import atomic_path
from ..memory import free_system_memory, in_words

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.safetensors"
FORMER = "checkpoint.pt"  # up to version 0.1: torch's own format, which can hold programs
LOG = "log.jsonl"
_LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it
_COPIES = 3  # of the file that reading holds at once: its bytes, the tensors, those they are loaded into


def save_checkpoint(folder: Path, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the state, then the log; the old checkpoint stays until the new one is whole.

    Args:
        state: mappings (by text or number), lists, tuples, texts, numbers, None, and dense tensors.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_packed(state, tensors))
    content = save(tensors, {"state": text, "sha256": _digest(text, tensors)})
    with atomic_path(folder / CHECKPOINT) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            raise OutputError(
                f"The checkpoint in {folder} could not be written ({error.strerror or error}).",
                "The training stopped; the checkpoint of the epoch before is unchanged.",
                "Make room on the disk, then continue with --resume.",
            ) from error
    with atomic_path(folder / LOG) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def has_checkpoint(folder: Path) -> bool:
    """Whether there is one to go on from.

    Raises:
        OutputError: there is only one of the former format, which is not read.
    """
    if (folder / CHECKPOINT).exists():
        return True
    if (folder / FORMER).exists():
        raise OutputError(
            f"The checkpoint {folder / FORMER} was made by an earlier version of this program.",
            "Its format can hold programs and is not read any more, so the training cannot be continued from there.",
            "Finish it with the version that began it; or delete the file to begin this training again from its start.",
        )
    return False


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state as it was saved, on the CPU.

    Raises:
        OutputError: there is none, or it cannot be read.
    """
    path = folder / CHECKPOINT
    try:
        size = path.stat().st_size
        if _COPIES * size > free_system_memory():
            raise ValueError(f"it is larger than the memory that is free: {in_words(size)}")
        state = _unpacked(path.read_bytes())
    except Exception as error:  # whatever a damaged file makes of a reader is the same to the user
        raise damaged(path, error) from error
    return state


def damaged(path: Path, error: Exception) -> OutputError:
    """The error for a checkpoint that is not what a training wrote."""
    told = str(error).strip().partition("\n")[0][:200]
    return OutputError(
        f"The checkpoint {path} cannot be read ({type(error).__name__}: {told}).",
        "The training cannot be continued from there.",
        "Restore the file from a backup; or delete it to begin this training again from its start.",
    )


def check_alike(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError where names, shapes or number types of tensors are not the expected ones."""
    if found.keys() != expected.keys():
        raise ValueError(f"other tensors: {sorted(map(str, found.keys() ^ expected.keys()))[:3]}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise ValueError(f"{name} is {list(found[name].shape)}, {found[name].dtype}")


def _unpacked(content: bytes) -> dict[str, Any]:
    """The state in a file's bytes. Raises whatever says that they are none."""
    from safetensors.torch import load

    header = int.from_bytes(content[:8], "little")
    if not 2 <= header <= min(_LARGEST_HEADER, len(content) - 8):
        raise ValueError("it is not whole")
    metadata = json.loads(content[8 : 8 + header])["__metadata__"]
    tensors = load(content)  # checks names, types, shapes and the length of the file
    if _digest(metadata["state"], tensors) != metadata["sha256"]:
        raise ValueError("it is not what was written: its checksum differs")
    state = _restored(json.loads(metadata["state"]), tensors)
    if not isinstance(state, dict):
        raise TypeError("it holds no state")
    return state


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors`."""
    import torch

    if isinstance(value, torch.Tensor):
        number = str(len(tensors))
        order = sorted(range(value.ndim), key=value.stride, reverse=True)
        tensors[number] = value.detach().cpu().permute(order).clone(memory_format=torch.contiguous_format)
        return {"tensor": number, "order": order}
    if isinstance(value, Mapping):
        return {"items": [[key, _packed(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_packed(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_packed(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} has no place in a checkpoint")


def _restored(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The counterpart of `_packed`. A tensor lies in memory as it did: elementwise steps are exact to the bit only when
    all that take part lie alike."""
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        order = value["order"]
        return tensors[value["tensor"]].permute(sorted(range(len(order)), key=order.__getitem__))
    if "tuple" in value:
        return tuple(_restored(item, tensors) for item in value["tuple"])
    return {key: _restored(item, tensors) for key, item in value["items"]}


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the JSON and of every tensor's name, type, shape and bytes."""
    import torch

    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
