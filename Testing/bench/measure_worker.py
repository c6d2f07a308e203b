"""What the worker adds to a segmentation: `.venv/bin/python Testing/bench/measure_worker.py IMAGE --model NAME`.

Asks one worker process for the same image several times and prints JSON: seconds until the answer, seconds that the
Segmenter took of these, and the difference, which is reading, writing and talking. The first request also starts the
process and loads the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "APFormerSlicer"))

from apformer.jobs.client import JobClient


def measure(image: Path, model: str, requests: int) -> list[dict[str, float]]:
    """One row per request, in order."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, JobClient(Path(folder) / "logs") as client:
        for number in range(requests):
            outputs = {"labels": str(Path(folder) / f"labels-{number}.nii.gz")}
            began = time.perf_counter()
            result: dict[str, Any] = client.run(
                "segment", {"image": str(image.resolve()), "model": model, "device": "cpu", "outputs": outputs}
            )
            answered, computed = time.perf_counter() - began, float(result["seconds"])
            rows.append({"answered_s": answered, "segmenting_s": computed, "more_s": answered - computed})
    return [{name: round(value, 3) for name, value in row.items()} for row in rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=4)
    options = parser.parse_args()
    print(json.dumps(measure(options.image, options.model, options.requests), indent=1))
