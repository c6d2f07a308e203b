"""Every registered network: trained for an epoch, kept as a bundle, run by the Segmenter, fine-tuned, made smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import Bundle, ModelLibrary, load_bundle
from apformer.errors import ConfigError
from apformer.inference import Segmenter
from apformer.networks import NETWORK_NAMES, build_network
from apformer.networks.slimmed import slimmed_arguments
from apformer.pruning import count_macs, count_parameters
from apformer.pruning.gates import QueryGate
from apformer.pruning.joint_search import JointSearch
from apformer.pruning.search_ranking import SearchBudget

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import finetune
from apformer.training.config import parse_config
from apformer.training.run import train, write_bundle
from crash_samples import plain_pictures
from finetune_samples import a_ball, a_request, a_site
from training_samples import settings

pytestmark = pytest.mark.long

VIT = {"hidden_size": 12, "mlp_dim": 24, "num_heads": 2}
SHAPE: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "image_size": [16, 16, 16]}
UTR = {name: value for name, value in SHAPE.items() if name != "image_size"}
SMALL_UTR = {**UTR, "channels": [2, 2, 4, 8], "depths": [1, 1, 1, 1, 2], "kernels": [3, 3, 3], "heads": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "apformer": {**SHAPE, "channels": [4, 4, 8, 8], "depth": 2, "heads": 2, "head_dim": 8, "ffn_dim": 16},
    "leanformer": {
        **SHAPE,
        "channels": [4, 6],
        "detail": 2,
        "width": 8,
        "depth": 2,
        "heads": 2,
        "head_dim": 4,
        "ffn_dim": 8,
    },
    "mobile_utr": SMALL_UTR,
    "sparse_unetr": {
        **SHAPE,
        **VIT,
        "num_layers": 4,
        "feature_size": 2,
        "skip_after": [1, 2, 3],
        "prune_after": [2],
        "prune_ratio": 0.5,
    },
    "transunet": {
        **SHAPE,
        **VIT,
        "width": 4,
        "units": [1, 1, 1],
        "num_layers": 2,
        "decoder_channels": [8, 4, 4, 4, 4],
    },
    "pruned": {
        **SMALL_UTR,
        "base": "mobile_utr",
        "plan": {
            "blocks": ["bottleneck.layers.0", "bottleneck.layers.1"],
            "tokens": [0, [8, 8, 8], 8],
            "prune_keys": True,
            "safety_ring": 1,
        },
    },
    "slimmed": {
        **SMALL_UTR,
        "base": "mobile_utr",
        "plan": {
            "blocks": {"bottleneck.layers.0": [2, 20], "bottleneck.layers.1": [3, 7]},
            "patched": ["bottleneck.layers.1"],
            "grid": [[2, 2, 2]],
            "tokens": [0, [8, 8, 8], 8],
            "pixels": 2,
        },
    },
}
# How a fine-tuning meets a budget: gates of its own, what is cut at once, or (all others) gates of the plug-in.
WAYS = {"apformer": "apformer", "leanformer": "leanformer", "sparse_unetr": "slimmed", "slimmed": "slimmed"}
STAGE = {"epochs": 1, "size": [16, 16, 16], "batch_size": 2, "learning_rate": 0.01, "validate_every": 1}


@pytest.fixture(autouse=True)
def pictures_are_not_drawn() -> Iterator[None]:
    with plain_pictures():
        yield


def test_all_registered_networks_take_part() -> None:
    assert set(NETWORKS) == set(NETWORK_NAMES)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_trained_kept_run_fine_tuned_and_made_smaller(name: str, a_dataset: Path, tmp_path: Path) -> None:
    walk(name, NETWORKS[name], a_dataset, tmp_path)


def walk(name: str, arguments: dict[str, Any], a_dataset: Path, tmp_path: Path) -> None:
    """One epoch of training -> bundle -> Segmenter -> fine-tuning -> to a budget, twice -> joint search."""
    config = parse_config(settings(network={"name": name, **arguments}, stages=[STAGE]))
    trained = train(config, a_dataset, tmp_path / "run", device="cpu", workers=0)
    library = ModelLibrary([tmp_path / "models"])
    base = library.add_version(lambda folder: write_bundle(config, trained.build_network().state_dict(), folder))
    library.activate(base.name, base.version)
    assert base.network_name == name

    image, _ = a_ball(5)
    labels = Segmenter(base, "cpu").segment(image).labels
    assert labels.spatial_shape == image.spatial_shape
    assert set(np.unique(labels.array)) <= {0, 1}

    site = a_site(tmp_path / "site")
    tuned = finetune(a_request(site, base=base.name), library=library).bundle
    assert tuned.network_name == ("mobile_utr" if name == "pruned" else name), "gates of other images are not kept"
    assert len(tuned.labels) == 2, "the base's Ball and the site's Hole"
    assert Segmenter(tuned, "cpu").segment(image).labels.spatial_shape == image.spatial_shape

    # after two epochs it may find nothing, and then nothing makes it the active version: it is named
    request = a_request(site, base=_reference(tuned), name="light", steps=12, budget="keep=0.5")
    light = finetune(request, library=library)
    way = WAYS.get(name, "pruned")
    assert light.bundle.network_name == way
    again = load_bundle(light.bundle.directory)
    assert Segmenter(again, "cpu").segment(image).labels.spatial_shape == image.spatial_shape
    after = light.summary["after"]
    if way == "slimmed":
        small, whole = (count_macs(bundle.build_network(), (1, 1, 16, 16, 16)).total for bundle in (again, tuned))
        assert small < whole and after["parameters"] < light.summary["before"]["parameters"]
    else:
        assert isinstance(again.build_network().query_gate, QueryGate)
        assert 0 <= after["kept_tokens_mean"] <= 1 and after["gmac"] <= after["gmac_dense"]
    if name in ("pruned", "slimmed"):  # and on from what has gates, or was cut, already
        further = replace(request, base=_reference(light.bundle), name="lighter", budget="keep=0.9")
        assert finetune(further, library=library).bundle.network_name == way

    if name not in ("slimmed", "pruned"):  # the very result of what follows, or one that has gates already
        _make_smaller(tuned.build_network(), name, tuned.network_arguments, image)


def _reference(bundle: Bundle) -> str:
    return f"{bundle.name}@{bundle.version}"


def _make_smaller(network: torch.nn.Module, name: str, arguments: dict[str, Any], image: Any) -> None:
    sample = torch.zeros(1, 1, 16, 16, 16)
    # The search's own check that all blocks see the same tokens refuses the token-sparse encoder's patches.
    search = JointSearch(network, sample=sample, patches=name != "sparse_unetr", pixel_channels=0)
    before = count_parameters(network)
    search.decide(SearchBudget(parameters=0.97))
    small = search.slice()
    assert count_parameters(small) <= 0.97 * before
    assert count_macs(small, sample.shape).total < count_macs(network, sample.shape).total
    again = build_network("slimmed", slimmed_arguments(small, name, arguments)).eval()
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(sample), search(sample), rtol=1e-4, atol=1e-4)


def test_the_dense_form_of_the_token_sparse_network_gets_gates_too(tmp_path: Path) -> None:
    library = ModelLibrary([tmp_path / "models"])
    base = _a_base(library, "sparse_unetr", {**NETWORKS["sparse_unetr"], "prune_ratio": 0.0})
    site = a_site(tmp_path / "site")
    tuned = finetune(a_request(site, base=base.name, steps=12, budget="keep=0.5"), library=library).bundle
    assert tuned.network_name == "pruned"
    assert tuned.network_arguments["base"] == "sparse_unetr"


@pytest.mark.parametrize(("name", "budget"), [("sparse_unetr", "speed=9x"), ("slimmed", "keep=0.0001")])
def test_a_budget_that_no_cut_can_meet_is_refused_and_says_what_can_be(tmp_path: Path, name: str, budget: str) -> None:
    library = ModelLibrary([tmp_path / "models"])
    base = _a_base(library, name, NETWORKS[name])
    with pytest.raises(ConfigError, match="out of reach") as caught:
        finetune(a_request(a_site(tmp_path / "site"), base=base.name, budget=budget), library=library)
    assert "remain" in caught.value.meaning


def _a_base(library: ModelLibrary, name: str, arguments: dict[str, Any]) -> Bundle:
    """An untrained model of the label Ball."""
    config = parse_config(settings(network={"name": name, **arguments}))
    weights = build_network(name, arguments).state_dict()
    base = library.add_version(lambda folder: write_bundle(config, weights, folder))
    return library.activate(base.name, base.version)
