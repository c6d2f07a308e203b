"""Reads spoiled files in a process of its own and says what came of each: `python reader.py REFERENCE BUDGET`.

One JSON line in (path, seed), one out. The process has little memory and a list of every file it opened.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "APFormerSlicer"), str(Path(__file__).parent)]

import apformer.files  # noqa: E402
import pydicom  # noqa: E402, F401
import SimpleITK  # noqa: E402, F401
from apformer.errors import InputError  # noqa: E402
from apformer.memory import memory_limit  # noqa: E402
from mutations import SECRET  # noqa: E402
from PIL import Image  # noqa: E402, F401

_ADDRESSES = 3 << 30  # bytes: a run-away reader ends here, not the machine
opened: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.append(str(arguments[0]))


def read(path: Path, reference: dict[str, np.ndarray], seed: str, budget: int) -> dict[str, Any]:
    try:
        with memory_limit(budget):
            volume = apformer.files.read_volume(path)
            if path.name.endswith(".seg.nrrd"):
                apformer.files.read_segment_names(path)
    except InputError as error:
        parts = (error.what, error.meaning, error.remedy)
        return {"outcome": "refused" if all(parts) else "uncaught", "words": error.what[:300]}
    except BaseException as error:  # noqa: BLE001
        return {"outcome": "uncaught", "words": f"{type(error).__name__}: {error}"[:300]}
    array, matrix = reference[f"{seed}/array"], reference[f"{seed}/matrix"]
    same_voxels = volume.array.shape == array.shape and np.array_equal(volume.array, array)
    same_place = np.array_equal(volume.ijk_to_ras, matrix)
    secret = SECRET[:32] in volume.array.tobytes()
    outcome = "equal" if same_voxels and same_place else "told" if volume.notes else "changed"
    return {"outcome": "outside" if secret else outcome, "voxels": same_voxels, "words": "; ".join(volume.notes)[:300]}


def resident(field: str) -> int:
    """Bytes of "VmRSS" (now) or "VmHWM" (the most since `forget_peak`); Linux tells."""
    text = Path("/proc/self/status").read_text("ascii")
    return int(text.partition(f"{field}:")[2].split()[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def main() -> None:
    reference = dict(np.load(sys.argv[1]))
    budget = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.gettempdir()  # tries folders when it is first asked
    sys.addaudithook(watch)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        path = Path(request["path"])
        if sys.platform == "linux":
            forget_peak()
            before = resident("VmRSS")
        opened.clear()
        answer = read(path, reference, request["seed"], budget)
        folder = str(path if path.is_dir() else path.parent)
        own = f"{tempfile.gettempdir()}/apformer-"  # copies of what was checked, for readers that are not ours
        allowed = (folder, own, sys.prefix, sys.base_prefix, "/proc/", "/sys/fs/cgroup", str(ROOT))
        if strange := [name for name in opened if not name.startswith(allowed)]:
            answer = {"outcome": "outside", "words": str(strange[:3])}
        answer["taken"] = resident("VmHWM") - before if sys.platform == "linux" else 0
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
