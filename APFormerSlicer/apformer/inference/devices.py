"""Choosing where to compute, and how much memory is free there."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

from ..errors import DeviceError

_GIB = 1 << 30
_WINDOWS_MEMORY_FIELDS = ("total", "available", "page", "page_free", "virtual", "virtual_free")
ASSUMED_FREE = 2 * _GIB  # where the system does not tell


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
            raise DeviceError(
                f"The device {text} is not there: {count} CUDA devices were found.",
                "Nothing was computed.",
                "Use --device auto or cpu; for a GPU, check its driver (nvidia-smi) and that torch has CUDA.",
            )
        return torch.device("cuda", index)
    if text == "mps" and not _has_mps():
        raise DeviceError("The device mps is not there.", "Nothing was computed.", "Use --device auto or cpu.")
    return torch.device(text)


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
    return _free_system_memory()


def _free_system_memory() -> int:
    """Without psutil, which Slicer does not bring: the inference path stays light."""
    if sys.platform == "win32":
        return _free_windows_memory()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"))
        if match:
            return int(match[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # macOS tells only the total
    return ASSUMED_FREE


def _free_windows_memory() -> int:
    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "available", "page", "page_free", "virtual", "virtual_free")
            ),
            ("extended", ctypes.c_ulonglong),
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    windll = getattr(ctypes, "windll")  # noqa: B009  absent from the type stubs of other systems
    if windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return int(status.available)
    return ASSUMED_FREE
