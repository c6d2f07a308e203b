"""The data sets of `apformer benchmark systems`: what is segmented, how images are prepared, who validates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundles.preprocessing import ACQUIRED, Preprocessing
from ..datasets.table import make_table
from ..errors import ConfigError
from ..training.config import Augmentation, LossWeights, Split, Stage, TrainingConfig

SIZE = (128, 128)  # what a processor trains in minutes; whole images fit into it
BATCH, BATCH_3D = 8, 2
PEAK_RATE, FINAL_RATE = {2: 1e-3, 3: 3e-3}, 1e-5  # by dimensions: minutes hold few steps on volumes


@dataclass(frozen=True)
class Task:
    """A data set.

    Attributes:
        labels: "value=name".
        patient: regular expression with the groups number and, where a patient has several files, patient. Those whose
            number is `remainder` modulo 5 validate.
        spacing: (i, j) that slices are brought to, mm, or (i, j, k) for volumes; pictures are brought to the patch size
            instead.
        patch: (k, j, i) of volumes, which holds the whole field of view; None for slices and pictures, whose size is
            the benchmark's.
        remainder: patients whose number is this, modulo 5, validate.
        voxel: (i, j, k) of what is compared, mm, for distances; None for pictures, whose distances are in pixels.
        pixelwise: whether SE, SP, ACC and IoU are reported too, as for polyps and skin lesions.
    """

    labels: tuple[str, ...]
    modality: str
    channels: int
    patient: str
    orientation: str
    spacing: tuple[float, ...] | None
    intensity: dict[str, Any]
    voxel: tuple[float, float, float] | None = None
    pixelwise: bool = False
    patch: tuple[int, int, int] | None = None
    remainder: int = 1


PERCENTILES: dict[str, Any] = {"kind": "percentile", "lower": 0.5, "upper": 99.5}
TASKS = {
    "acdc-cine-mr": Task(
        ("1=Right ventricle", "2=Myocardium", "3=Left ventricle"),
        "MR",
        1,
        r"(?P<patient>patient(?P<number>\d+))",
        ACQUIRED,
        (2.0, 2.0),
        PERCENTILES,
        (2.0, 2.0, 10.0),
    ),
    "liver-ct-slices": Task(
        ("1=Liver",), "CT", 1, r"liver_(?P<number>\d+)_", "LPS", None, {"kind": "window", "lower": 0.0, "upper": 255.0}
    ),
    # No number: the last digit of the file name takes its place, as good as drawn by lot, and the same for everyone.
    "polyp-rgb": Task(
        ("1=Polyp",),
        "RGB",
        3,
        r"^(?P<patient>.*(?P<number>\d)[a-z]*)\.",
        ACQUIRED,
        None,
        PERCENTILES,
        pixelwise=True,
    ),
    "left-ventricle-cine-mr": Task(
        ("1=Left ventricle",), "MR", 1, r"(?P<patient>SC-[A-Z-]+(?P<number>\d+))-IM", ACQUIRED, None, PERCENTILES
    ),
    "left-atrium-mr": Task(
        ("1=Left atrium",),
        "MR",
        1,
        r"la_(?P<number>\d+)",
        "RAS",
        (3.0, 3.0, 3.0),
        PERCENTILES,
        (3.0, 3.0, 3.0),
        patch=(48, 96, 96),
    ),
    "abdomen-mr": Task(
        ("1=Liver", "2=Right kidney", "3=Left kidney", "4=Spleen"),
        "MR",
        1,
        r"chaos_(?P<number>\d+)",
        "RAS",
        (2.5, 2.5, 7.7),
        PERCENTILES,
        (2.5, 2.5, 7.7),
        patch=(48, 128, 128),
        remainder=3,
    ),
}


def task_of(dataset: Path) -> Task:
    """The task of a data set, by the name of its folder.

    Raises:
        ConfigError: it is none of them.
    """
    if dataset.name not in TASKS:
        raise ConfigError(
            f"{dataset.name} is not one of the data sets of this benchmark.",
            "It is not known what its labels are, nor which file is whose.",
            f"Give folders named {', '.join(TASKS)}.",
        )
    return TASKS[dataset.name]


def configuration(task: Task, seed: int, size: tuple[int, ...] = SIZE, precision: str = "bfloat16") -> TrainingConfig:
    """What all systems have in common. The network and the stages are each system's own."""
    flips = (0, 1) if task.pixelwise else ()
    dims, size = (2, size) if task.patch is None else (3, task.patch)
    return TrainingConfig(
        name="benchmark",
        version="1.0.0",
        description="A benchmark; no model is kept.",
        modality=task.modality,
        channels=task.channels,
        data_licence="not distributed",
        labels=make_table(task.labels),
        preprocessing=Preprocessing(dims, task.orientation, task.spacing, size, dict(task.intensity)),
        network="",
        network_arguments={},
        split=Split(task.patient, remainder=task.remainder),
        stages=(Stage(1, size, BATCH if dims == 2 else BATCH_3D, PEAK_RATE[dims], FINAL_RATE),),
        augmentation=Augmentation(flip_axes=flips, zoom=(0.8, 1.25)),
        losses=LossWeights(),
        seed=seed,
        precision=precision,
        weight_decay=0.01,
        ema_decay=0.97,  # minutes hold a few hundred steps
    )
