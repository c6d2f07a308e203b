"""`apformer benchmark plugin` on a tiny UNETR and drawn squares: what it reports is true. No test asserts a time."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.benchmarks import plugin
from apformer.benchmarks.plugin import Recipe
from apformer.benchmarks.plugin_training import train
from apformer.cli import main
from apformer.errors import ConfigError
from apformer.metrics import pooled_dice
from apformer.pruning import count_macs
from apformer.pruning.budget import Budget
from apformer.pruning.plugin import HEAD_WIDTH
from apformer.training.augment import fit
from apformer.training.cases import PreparedCases, read_dataset, split_cases
from apformer.training.config import Stage, TrainingConfig, parse_config
from PIL import Image
from safetensors.torch import load_file

CONFIGS = Path(__file__).parents[2] / "Configs"
WIDTHS = {"hidden_size": 12, "mlp_dim": 16, "num_heads": 2, "feature_size": 2}
TINY = Recipe(
    widths=WIDTHS,
    first=(Stage(2, (), 4, 1e-2, 1e-3),),
    pruned=(
        Stage(1, (), 4, 5e-3, gates="open"),
        Stage(1, (), 4, 5e-3, gates="tighten"),
        Stage(1, (), 4, 5e-3, gates="hold"),
        Stage(1, (), 4, 5e-3, gates="hard"),
    ),
    ema_decay=0.5,
)


@pytest.fixture(scope="module")
def a_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of a bright square of patients 1 to 10; the patients 1 and 6 validate."""
    folder = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    listed = []
    for number in range(20):
        label = np.zeros((64, 48), np.uint8)
        row, column = generator.integers(0, [40, 24])
        label[row : row + 20, column : column + 20] = 1
        pixels = (generator.integers(0, 90, label.shape) + 150 * label).astype(np.uint8)
        name = f"p{1 + number // 2}_{number % 2}.png"
        for kind, array in (("imagesTr", pixels), ("labelsTr", label)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / kind / name)
        listed.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    (folder / "dataset.json").write_text(json.dumps({"training": listed}))
    return folder


@pytest.fixture(scope="module")
def a_config() -> TrainingConfig:
    return parse_config(
        {
            "name": "square",
            "version": "1.0.0",
            "description": "A bright square.",
            "modality": "CT",
            "channels": 1,
            "data_licence": "made by the test",
            "labels": [
                {
                    "value": 1,
                    "name": "Square",
                    "color": [200, 30, 30],
                    "category": {"scheme": "SCT", "value": "123037004", "meaning": "Anatomical Structure"},
                    "type": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"},
                }
            ],
            "preprocessing": {
                "spatial_dims": 2,
                "orientation": "LPS",
                "spacing_mm": None,
                "patch_size": [64, 40],  # not a multiple of a UNETR's patch: 48 is taken
                "intensity": {"kind": "window", "lower": 0.0, "upper": 255.0},
            },
            "network": {"name": "apformer"},
            "split": {"pattern": "p(?P<number>[0-9]+)_"},
            "stages": [{"epochs": 1, "size": [64, 40], "batch_size": 1, "learning_rate": 0.1}],
        }
    )


@pytest.fixture(scope="module")
def measured(a_dataset: Path, a_config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of one run, and the folder it was kept in."""
    output = tmp_path_factory.mktemp("kept")
    record = plugin.run(a_dataset, a_config, keep=0.4, output=output, recipe=TINY)
    return {"record": record, "output": output}


@pytest.fixture(scope="module")
def networks(measured: dict[str, Any], a_config: TrainingConfig) -> dict[str, Any]:
    """The plain and the pruned network, built anew from the weights that were kept."""
    plain = plugin.build_unetr(a_config, (64, 48), WIDTHS)
    pruned = plugin.wrap(plugin.build_unetr(a_config, (64, 48), WIDTHS), a_config, (64, 48), TINY)
    for name, network in (("plain", plain), ("pruned", pruned)):
        network.load_state_dict(load_file(measured["output"] / f"{name}.safetensors"))
        network.eval()
    return {"plain": plain, "pruned": pruned}


@pytest.fixture(scope="module")
def validation(a_dataset: Path, a_config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> PreparedCases:
    cases = split_cases(read_dataset(a_dataset, a_config.split), a_config.split)[1]
    prepared = PreparedCases(cases, tmp_path_factory.mktemp("prepared"), a_config.preprocessing)
    prepared.build()
    return prepared


def row(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The row of a network."""
    return next(row for row in record["rows"] if row["network"] == name)


def test_it_validates_on_the_patients_that_the_bundled_models_hold_out(measured: dict[str, Any]):
    data = measured["record"]["data"]
    assert data["training"] == {"images": 16, "patients": 8}
    assert data["validation"] == {"images": 4, "patients": 2}
    assert measured["record"]["network"]["size"] == [64, 48]
    assert measured["record"]["network"]["tokens"] == 12


def test_the_reported_dice_and_kept_tokens_are_those_of_the_kept_weights(
    measured: dict[str, Any], networks: dict[str, Any], validation: PreparedCases
):
    record = measured["record"]
    kept = []
    for name, gating in (("plain", None), ("pruned", "hard"), ("gates taken out", "off")):
        network = networks["plain" if gating is None else "pruned"]
        if gating is not None:
            network.gating = gating
        pairs = []
        for index in range(len(validation)):
            image, label = validation.item(index)
            with torch.no_grad():
                logits = network(fit(image, (64, 48))[None])
                if gating == "hard":
                    kept.append(float(network(fit(image, (64, 48))[None], auxiliaries=True)[1].kept.mean()))
            cut = fit(logits[0].argmax(0)[None].float(), label.shape[1:])[0]
            pairs.append((cut.numpy() == 1, label[0].numpy() == 1))
        entry = row(record, name)["dice"]["Square"]
        assert entry["pooled"] == pytest.approx(pooled_dice(pairs))
        assert entry["mean"] == pytest.approx(np.mean([pooled_dice([pair]) for pair in pairs]))
    assert record["kept_tokens_mean"] == pytest.approx(np.mean(kept))
    assert record["kept_tokens"]["max"] == max(kept)


def test_gmac_are_the_counters_and_pruning_saves_no_more_than_the_gated_blocks(
    measured: dict[str, Any], networks: dict[str, Any]
):
    record = measured["record"]
    plain = count_macs(networks["plain"], (1, 1, 64, 48)).total / 1e9
    assert row(record, "plain")["gmac"] == plain == row(record, "gates taken out")["gmac"]
    blocks = sum(cost.macs(12, 12) for cost in networks["pruned"].costs) / 1e9
    assert len(networks["pruned"].costs) == 12
    head = (
        12 * (12 * HEAD_WIDTH + 9 * HEAD_WIDTH * 2) / 1e9
    )  # per token: a hidden layer, and 3 x 3 neighbours to 2 logits
    assert row(record, "everything pruned")["gmac"] == pytest.approx(plain - blocks + head)
    spared = blocks * (1 - record["transformer_macs_share"])
    assert row(record, "pruned")["gmac"] == pytest.approx(plain - spared + head)
    assert 0 < record["transformer_macs_share"] < 1
    assert row(record, "everything pruned")["dice"] is None


def test_restoring_is_told_to_the_bit_and_a_change_is_noticed(
    measured: dict[str, Any], networks: dict[str, Any], validation: PreparedCases
):
    as_it_should_be = {"images": 4, "same_parameters": True, "as_gates_off": 4, "as_plain": 4}
    assert measured["record"]["restored"] == as_it_should_be
    assert plugin.restoring(networks["plain"], networks["pruned"], validation, (64, 48)) == as_it_should_be
    changed = copy.deepcopy(networks["plain"])
    changed.out.register_forward_hook(lambda module, args, output: output + 1e-6)
    found = plugin.restoring(changed, networks["pruned"], validation, (64, 48))
    assert (found["as_gates_off"], found["as_plain"]) == (4, 0)


def test_both_trainings_change_what_they_should(networks: dict[str, Any], a_config: TrainingConfig):
    plain, pruned = networks["plain"].state_dict(), networks["pruned"].state_dict()
    untrained = plugin.build_unetr(a_config, (64, 48), WIDTHS)
    fresh = plugin.wrap(untrained, a_config, (64, 48), TINY).state_dict()
    assert all(not torch.equal(fresh[f"network.{key}"], value) for key, value in plain.items() if "qkv" in key)
    assert any(not torch.equal(plain[key], pruned[f"network.{key}"]) for key in plain)
    for key in ("query_gate.threshold", "dependency.0.gate", "prune_head.around.weight"):
        assert not torch.equal(fresh[key], pruned[key]), key


def test_the_same_run_gives_the_same_weights(
    measured: dict[str, Any], a_dataset: Path, a_config: TrainingConfig, tmp_path: Path
):
    plugin.run(a_dataset, a_config, keep=0.4, output=tmp_path, recipe=TINY)
    for name in ("plain", "pruned"):
        first, second = (load_file(folder / f"{name}.safetensors") for folder in (measured["output"], tmp_path))
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_by_the_clock_goes_through_all_stages(a_config: TrainingConfig, validation: PreparedCases):
    said: list[str] = []
    config = plugin.configurations(a_config, TINY, (64, 48), Budget(keep=0.4))["pruned"]
    network = plugin.wrap(plugin.build_unetr(a_config, (64, 48), WIDTHS), a_config, (64, 48), TINY)
    train(network, config, validation, 4 / 60, said.append)
    assert said[-1].startswith("4 of 4 epochs")
    assert network.gating == "hard"
    assert [line for line in said if "budget" in line]


def test_the_text_states_what_was_done_and_what_a_busy_machine_means(measured: dict[str, Any]):
    record = copy.deepcopy(measured["record"])
    record["machine"] |= {"busy": True, "load": 1.75}
    text = plugin.render(record)
    for expected in ("load 1.75", "keep=0.4", "16 training images of 8 patients", "on 4 of 4 images", "hidden_size 12"):
        assert expected in text
    assert json.loads((measured["output"] / "record.json").read_text()) == measured["record"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--keep", "1.5"], "not a share"),
        (["--keep", "0"], "not a share"),
        (["--minutes", "soon"], "not a number of minutes"),
        ([], "--config"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    config = ["--config", "x.toml"] if words else []
    assert main(["benchmark", "plugin", "nowhere", *config, *words]) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_prints_the_record_as_json(
    a_dataset: Path, a_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: dict[str, Any] = {}

    def record(dataset: Path, config: TrainingConfig, **options: Any) -> dict[str, Any]:
        asked.update(options, dataset=dataset, name=config.name)
        return {"rows": []}

    monkeypatch.setattr(plugin, "run", record)
    monkeypatch.setattr(plugin, "render", lambda found: "text")
    words = ["--config", str(CONFIGS / "liver-ct.toml"), "--keep", "0.25", "--minutes", "2", "--json"]
    assert main(["benchmark", "plugin", str(a_dataset), *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": []}
    assert (asked["dataset"], asked["name"], asked["keep"], asked["minutes"]) == (a_dataset, "liver-ct", 0.25, 2.0)
    assert asked["output"] is None


def test_without_monai_it_says_what_to_install(a_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "einops", None)
    with pytest.raises(ConfigError, match="pip install monai einops"):
        plugin.build_unetr(a_config, (64, 48), WIDTHS)
