"""On what a measurement was taken. A time without its machine means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from .memory import GIB

BUSY_SHARE = 0.5  # of the cores; above it other programs disturb what is measured


def describe_machine() -> dict[str, Any]:
    """Processor, cores, threads that torch uses, memory, graphics card, versions, and how busy it is (1 minute)."""
    import psutil
    import torch

    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    load = psutil.getloadavg()[0]  # on Windows psutil starts to sample at the first call and answers 0
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "logical_cores": psutil.cpu_count() or cores,
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(load, 2),
        "busy": load > BUSY_SHARE * cores,
    }


def _cpu_name() -> str:
    name = ""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    elif sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        name = asked.stdout.strip()
    return name or platform.processor() or platform.machine()
