"""How a LeanFormer for a model from nothing goes down, and how its training sees large images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles.preprocessing import ACQUIRED, Preprocessing
from apformer.datasets import SiteDataset
from apformer.datasets.table import make_table
from apformer.errors import ConfigError
from apformer.finetuning.design import PERCENTILES, Design, design
from apformer.finetuning.levels import FINE, MOST_TOKENS, lean_arguments
from apformer.finetuning.request import Request
from apformer.networks import LeanFormer, build_network, registered
from apformer.volume import Volume
from finetune_samples import a_site

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning.form import Form
from apformer.finetuning.labels import LabelPlan
from apformer.finetuning.recipe import write_recipe
from apformer.training.config import Stage, TrainingConfig


def built(patch: tuple[int, ...], across: float = math.inf) -> LeanFormer:
    network = build_network("leanformer", {**lean_arguments(patch, across), "in_channels": 1, "out_channels": 2})
    assert isinstance(network, LeanFormer)
    return network


@pytest.mark.parametrize(
    ("patch", "stride"),
    [((256, 256), 16), ((96, 96), 16), ((48, 96, 96), 8), ((40, 56, 40), 8), ((80, 80, 80), 8), ((48, 128, 128), 16)],
)
def test_tokens_are_as_coarse_as_attention_can_afford(patch: tuple[int, ...], stride: int) -> None:
    network = built(patch)
    assert network.token_stride == (stride,) * len(patch)
    assert math.prod(network.config.base_grid) <= MOST_TOKENS


def test_what_is_thin_is_seen_at_full_size_first() -> None:
    wide, thin = built((64, 64, 64), FINE), built((64, 64, 64), FINE - 0.1)
    assert wide.config.stride_of(0) == (2, 2, 2)
    assert thin.config.stride_of(0) == (1, 1, 1)
    assert wide.token_stride == thin.token_stride


def test_a_thin_structure_makes_the_model_of_a_site_begin_at_full_size(tmp_path: Path) -> None:
    site = a_site(tmp_path / "site", 3)  # a ball, and a hole of three voxels in it
    assert design(site.cases(), [1, 2]).arguments["strides"][0] == 1


def test_another_network_can_be_asked_for(tmp_path: Path) -> None:
    found = design(a_site(tmp_path / "site", 3).cases(), [1, 2], network="apformer")
    assert found.network == "apformer"
    assert found.arguments["head_dim"] == 64
    with pytest.raises(ConfigError, match="brings its own network"):
        Request(tmp_path, "new", "liver-ct", network="apformer")


def test_a_benchmark_can_have_a_network_of_its_own_as_long_as_it_lasts() -> None:
    with registered("other", lambda **arguments: LeanFormer(image_size=(16, 16), **arguments)):
        assert isinstance(build_network("other", {"out_channels": 2}), LeanFormer)
        with pytest.raises(ValueError, match="already"), registered("other", LeanFormer):
            pass
    with pytest.raises(ConfigError, match="not registered"):
        build_network("other", {})


# ------------------------------------------------------------------------------------------------ stages


def stages(network: str, patch: tuple[int, ...], **asked: Any) -> tuple[Stage, ...]:
    return recipe(network, patch, ["Organ"], **asked).stages


def recipe(network: str, patch: tuple[int, ...], table: list[str], **asked: Any) -> TrainingConfig:
    settings = Preprocessing(len(patch), "RAS" if len(patch) == 3 else ACQUIRED, None, patch, dict(PERCENTILES))
    source = Design("MR", 1, settings, network, {})
    plan = LabelPlan(tuple(make_table(table)), {1: 1}, {}, frozenset({1}), ())
    request = Request(Path("site"), "new", None, **asked)
    return write_recipe(request, source, plan, Form(network, {}), "1.0.0", "")


def test_a_leanformer_sees_large_images_whole_and_coarsely_first_since_it_knows_where_it_looks() -> None:
    coarse, full = stages("leanformer", (256, 256))
    assert (coarse.size, coarse.crop, full.size) == ((128, 128), False, (256, 256))
    assert coarse.batch_size == 2 * full.batch_size


def test_the_published_form_learns_large_images_from_parts_first() -> None:
    coarse, full = stages("apformer", (256, 256))
    assert (coarse.size, coarse.crop, full.size) == ((128, 128), True, (256, 256))


def test_volumes_are_seen_as_they_are() -> None:
    (only,) = stages("leanformer", (48, 96, 96))
    assert only.size == (48, 96, 96)


# ------------------------------------------------------------------------------------------------ left and right


def test_slices_are_mirrored_but_not_where_left_and_right_are_two_structures() -> None:
    mirrored = recipe("leanformer", (64, 64), ["Left ventricle", "Right ventricle wall"]).augmentation
    assert mirrored.flip_axes and mirrored.rotate90_p
    kept = recipe("leanformer", (64, 64), ["Left kidney", "right KIDNEY"]).augmentation
    assert not kept.flip_axes and not kept.rotate90_p


def test_slices_of_paired_structures_are_turned_as_the_patient_lies(tmp_path: Path) -> None:
    dataset = SiteDataset.create(tmp_path / "site", make_table(["Left kidney", "Right kidney"]))
    labels = np.zeros((6, 16, 16), np.uint8)
    labels[2:4, 4:8, 2:6], labels[2:4, 4:8, 10:14] = 1, 2
    image = Volume(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), np.diag([1, 1, 8, 1.0]), "MR")
    dataset.add(image, image.with_array(labels), patient="a")
    assert design(dataset.cases(), [1, 2], sided=True).preprocessing.orientation == "LPS"
    assert design(dataset.cases(), [1, 2]).preprocessing.orientation == ACQUIRED
