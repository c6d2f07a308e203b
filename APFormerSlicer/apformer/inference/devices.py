"""Choosing where to compute, and how much memory is free there."""

from __future__ import annotations

import re

import torch

from ..errors import DeviceError
from ..memory import free_system_memory


def choose_device(text: str = "auto") -> torch.device:
    """The device named by "auto", "cpu", "cuda", "cuda:N" or "mps"; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: unknown name, or the device is absent.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if _has_mps() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", text):
        raise DeviceError(
            f"{text!r} is not a device.",
            "Nothing was computed.",
            "Use auto, cpu, cuda, cuda:0 (or another number) or mps.",
        )
    if text.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(text[5:] or 0)
        if index >= count:
            raise _without_cuda(text, count)
        return torch.device("cuda", index)
    if text == "mps" and not _has_mps():
        raise DeviceError(
            "The device mps is not there: it is the GPU of Apple's own processors, in macOS from 12.3.",
            "Nothing was computed.",
            "Choose the device auto or cpu.",
        )
    return torch.device(text)


def _without_cuda(text: str, count: int) -> DeviceError:
    """What a CUDA device lacks: a torch for it, a driver, or a GPU of that number."""
    if torch.version.cuda is None:
        lacks = f"The installed torch {torch.__version__} was built without CUDA."
        remedy = (
            "Choose the device auto or cpu; for a GPU of NVIDIA install torch with CUDA, in Slicer by PyTorch Utils."
        )
    elif count == 0:
        lacks = (
            f"The installed torch has CUDA {torch.version.cuda}, but there is no GPU of NVIDIA, or no driver for it."
        )
        remedy = "Choose the device auto or cpu; for the GPU, install or repair its driver: nvidia-smi must list it."
    else:
        names = ", ".join(f"cuda:{number}" for number in range(count))
        lacks = f"This computer has {names}."
        remedy = "Choose one of these, auto or cpu."
    what = f"The device {text} is not there: {count} CUDA devices were found. {lacks}"
    return DeviceError(what, "Nothing was computed.", remedy)


def _has_mps() -> bool:
    return bool(getattr(torch.backends, "mps", None)) and torch.backends.mps.is_available()


def describe(device: torch.device) -> str:
    """What ran, for reports: "cpu (2 threads)" or "cuda:0 (NVIDIA ...)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on `device`; a cautious guess where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return max(0, int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()))
    return free_system_memory()


def release_cache(device: torch.device) -> None:
    """Give back the memory of a GPU that torch keeps for later; of the CPU, nothing is kept by torch itself."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
