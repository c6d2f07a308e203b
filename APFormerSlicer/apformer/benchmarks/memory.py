"""The most memory this process has held at once."""

from __future__ import annotations

import sys
from pathlib import Path

GIB = 1 << 30


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since its program started, in bytes; Linux, macOS and Windows.

    Linux: `ru_maxrss` is carried over from the process that started this one, so a large parent would be reported as
    a large child; VmHWM belongs to this program alone (proc(5)).
    """
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
