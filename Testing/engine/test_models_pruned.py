"""The bundled, pruned models on real cases: pruning never loses an organ, and each image takes what it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer import files
from apformer.bundles import ModelLibrary, bundled_models
from apformer.inference import Segmenter
from apformer.metrics import evaluate

LARGE_ML = 1.0
LIVER = 5  # its value in TotalSegmentator's labels


def a_segmenter(name: str) -> Segmenter:
    return Segmenter(ModelLibrary(bundled_models()).find(name), "cpu")


def test_no_organ_of_more_than_1_ml_is_lost_to_pruning(data_root: Path) -> None:
    segmenter = a_segmenter("hippocampus-mr")
    images = sorted((data_root / "hippocampus-mr" / "imagesTr").glob("*.nii.gz"))[::25]
    assert images
    reruns = 0
    for path in images:
        volume = files.read_volume(path)
        segmenter.network.gating = "hard"
        pruned = segmenter.segment(volume)
        segmenter.network.gating = "off"
        dense = segmenter.segment(volume)
        reruns += pruned.dense_reruns
        for name, volume_ml in dense.volumes_ml.items():
            assert volume_ml <= LARGE_ML or pruned.volumes_ml[name] == pytest.approx(volume_ml, rel=0.2), path.name
    assert reruns == 0, "every one of these crops holds a hippocampus, so there was nothing to doubt"


def test_a_torso_keeps_its_liver_and_most_slices_are_pruned_whole(data_root: Path) -> None:
    segmenter = a_segmenter("liver-ct")
    volume = files.read_volume(data_root / "torso-ct" / "torso_ct.nii.gz")
    reference = files.read_volume(data_root / "torso-ct" / "torso_ct_totalsegmentator.nii.gz")
    result = segmenter.segment(volume, kept_tokens=True)
    reference_ml = float((reference.array == LIVER).sum()) * volume.voxel_volume_ml
    assert reference_ml > LARGE_ML
    assert result.volumes_ml["Liver"] == pytest.approx(reference_ml, rel=0.05)
    liver = evaluate(result.labels, reference.with_array((reference.array == LIVER).astype(np.uint8)), {1: "Liver"})
    score = liver.labels[1]
    assert score.dice is not None and score.dice > 0.94  # 0.943 of the dense model that it was made from
    assert score.hd95_mm is not None and score.hd95_mm < 10.0  # the colon taken for liver makes 14 to 82
    assert result.kept_tokens is not None
    assert result.kept_tokens.array.mean() < 0.5
    slices = max(volume.spatial_shape)
    assert result.dense_reruns < 0.25 * slices, "doubt is the exception"


def test_the_bundled_models_say_what_pruning_cost_them() -> None:
    for entry in ModelLibrary(bundled_models()).list():
        bundle = ModelLibrary(bundled_models()).find(entry.name)
        metrics = bundle.metadata["metrics"]
        for name, label in metrics["labels"].items():
            for kind in ("mean_dice", "pooled_dice"):
                assert label[kind] >= metrics["base"][name][kind] - 0.005, (entry.name, name, kind)
        assert metrics["pruning"]["speedup_cpu"] > (1.5 if bundle.preprocessing.spatial_dims == 2 else 1.0)
        assert metrics["pruning"]["kept_tokens"]["max"] < 1
