"""A small training: a ball in noise, its settings, its trainer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from apformer.training.cases import PreparedCases, read_dataset, split_cases
from apformer.training.config import TrainingConfig
from apformer.training.loop import Trainer

SETTINGS: dict[str, Any] = {
    "name": "ball",
    "version": "1.0.0",
    "description": "A bright ball.",
    "modality": "MR",
    "channels": 1,
    "data_licence": "made by the test",
    "warmup_fraction": 0.1,
    "ema_decay": 0.5,
    "labels": [
        {
            "value": 1,
            "name": "Ball",
            "color": [200, 30, 30],
            "category": {"scheme": "SCT", "value": "123037004", "meaning": "Anatomical Structure"},
            "type": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"},
        }
    ],
    "preprocessing": {
        "spatial_dims": 3,
        "orientation": "RAS",
        "spacing_mm": [1.0, 1.0, 1.0],
        "patch_size": [16, 16, 16],
        "intensity": {"kind": "percentile", "lower": 0.5, "upper": 99.5},
    },
    "network": {
        "name": "apformer",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "image_size": [16, 16, 16],
        "channels": [4, 8, 8, 8],
        "depth": 2,
        "heads": 2,
        "head_dim": 4,
        "ffn_dim": 8,
    },
    "split": {"pattern": "(?P<patient>p(?P<number>[0-9]+))_"},
    "stages": [{"epochs": 4, "size": [16, 16, 16], "batch_size": 2, "learning_rate": 0.02, "validate_every": 2}],
    "augmentation": {"zoom_p": 0.0},
}


def settings(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy({**SETTINGS, **changes})


def prepared(dataset: Path, config: TrainingConfig, folder: Path) -> tuple[PreparedCases, PreparedCases]:
    parts = [
        PreparedCases(part, folder, config.preprocessing)
        for part in split_cases(read_dataset(dataset, config.split), config.split)
    ]
    for part in parts:
        part.build()
    return parts[0], parts[1]


def a_trainer(dataset: Path, config: TrainingConfig, folder: Path, **options: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(
        config, *prepared(dataset, config, folder / "prepared"), folder, torch.device("cpu"), workers=0, **options
    )
