"""Training of gates: from a dense model, to a budget, resumable; and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from apformer.errors import ConfigError
from apformer.networks import build_network
from apformer.networks.apformer import APFormer
from apformer.training import parse_config, train
from apformer.training.calibration import foreground_inside
from apformer.training.cases import PreparedCases
from apformer.training.loop import fingerprint
from apformer.training.pruned import compacted
from training_samples import SETTINGS, a_trainer, prepared, settings

GATED = {
    "network": {
        **SETTINGS["network"],
        "strides": [1, 2, 2],  # 64 tokens in an image of 16 voxels a side
        "prune_queries": True,
        "prune_keys": True,
        "safety_ring": 0,
    },
    "pruning": {"budget": "keep=0.3", "gate_rate": 40.0, "energy": 0.02},
    "stages": [
        {"epochs": 1, "size": [16] * 3, "batch_size": 2, "learning_rate": 0.01, "gates": phase, "validate_every": 1}
        for phase in ("open", "tighten", "hold", "hard")
    ],
}


def test_gates_are_trained_from_a_dense_model_and_the_pruned_one_is_smaller_and_measured(
    a_dataset: Path, tmp_path: Path
) -> None:
    stages = [{"epochs": 10, "size": [16] * 3, "batch_size": 2, "learning_rate": 0.02, "validate_every": 5}]
    plain = {**SETTINGS["network"], "strides": [1, 2, 2]}
    dense = train(
        parse_config(settings(stages=stages, network=plain)), a_dataset, tmp_path / "dense", device="cpu", workers=0
    )
    phases = copy.deepcopy(GATED["stages"])
    phases[1]["epochs"], phases[2]["epochs"] = 6, 6
    config = parse_config(settings(**{**GATED, "stages": phases}))
    events: list[dict[str, Any]] = []
    pruned = train(config, a_dataset, tmp_path / "pruned", device="cpu", workers=0, base=dense, on_event=events.append)

    epochs = [event for event in events if event["event"] == "epoch"]
    assert epochs[-2]["loss_cost"] < 0.5, "the budget was approached"
    assert epochs[-2]["loss_cost"] < epochs[0]["loss_cost"]
    network, original = pruned.build_network(), dense.build_network()
    assert sum(p.numel() for p in network.layers.parameters()) < sum(p.numel() for p in original.layers.parameters())
    metrics = pruned.metadata["metrics"]
    assert metrics["base"]["Ball"] == dense.metadata["metrics"]["labels"]["Ball"]
    assert metrics["labels"]["Ball"]["pooled_dice"] > 0.6
    kept = metrics["pruning"]["kept_tokens"]
    assert 0 <= kept["min"] <= kept["median"] <= kept["max"] <= 1
    assert metrics["pruning"]["transformer_macs_share"] < 1
    assert pruned.metadata["parent_version"] == "ball 1.0.0"
    assert "## Pruning" in pruned.card and "--base BASE" in pruned.card


def test_gates_move_by_the_loss_and_stand_still_without_one(a_dataset: Path, tmp_path: Path) -> None:
    closed = [{**GATED["stages"][0], "gates": "closed"}]
    moved = {}
    for name, stages in (("closed", closed), ("open", GATED["stages"][:1])):
        config = parse_config(settings(**{**GATED, "stages": stages, "weight_decay": 0.1}))
        trainer = a_trainer(a_dataset, config, tmp_path / name)
        before = [parameter.clone() for parameter in trainer.gates.parameters]
        trainer.run()
        moved[name] = [not torch.equal(a, b) for a, b in zip(before, trainer.gates.parameters, strict=True)]
    assert not any(moved["closed"]), "weight decay must not move gates"
    assert all(moved["open"]), "every gate learns from the segmentation"


def test_hard_gates_are_frozen_while_the_weights_recover(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings(**{**GATED, "stages": GATED["stages"][3:]}))
    trainer = a_trainer(a_dataset, config, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.run()
    for name, value in trainer.network.named_parameters():
        assert torch.equal(value, before[name]) == ("query_gate" in name or ".dependency." in name), name


def test_a_training_of_gates_resumes_exactly(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings(**GATED))
    whole = a_trainer(a_dataset, config, tmp_path / "whole")
    expected = whole.run()

    def stop_after_two(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        a_trainer(a_dataset, config, tmp_path / "part", on_epoch=stop_after_two).run()
    again = a_trainer(a_dataset, config, tmp_path / "part")
    again.resume()
    assert again.gates.steering.state_dict()["mean"] is not None
    resumed = again.run()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def _never_asked(network: APFormer) -> Any:
    raise AssertionError


def waiting(
    rows: list[dict[str, Any]],
    is_ready: Callable[[APFormer], bool] = _never_asked,
    set_threshold: Callable[[APFormer], Any] = lambda network: None,
) -> Any:
    """(configuration of ten epochs whose gates wait, options for a trainer that writes its log into `rows`)."""
    stage = {"epochs": 10, "size": [16] * 3, "batch_size": 2, "learning_rate": 0.01, "validate_every": 5}
    config = parse_config(settings(**{**GATED, "stages": [{**stage, "gates": "ready"}]}))
    thresholds = SimpleNamespace(is_ready=is_ready, set_threshold=set_threshold)
    return config, {"on_epoch": rows.append, "thresholds": thresholds}


def test_gates_that_wait_open_when_the_prune_head_is_ready_and_are_set_at_once(a_dataset: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    asked: list[str] = []
    thresholds: list[float] = []

    def ready(network: APFormer) -> bool:
        asked.append(network.gating)
        return len(asked) == 2  # after a tenth

    def settle(network: APFormer) -> None:
        thresholds.append(len(rows))
        network.query_gate.threshold.data.fill_(-3.0)

    config, options = waiting(rows, is_ready=ready, set_threshold=settle)
    trainer = a_trainer(a_dataset, config, tmp_path / "run", **options)
    trainer.run()
    assert [row["gates"] for row in rows] == ["closed"] + ["hard"] * 9
    assert asked == ["hard"] * 2, "how it would prune, which is not asked again once they are open"
    assert "loss_kept" not in rows[0] and "loss_kept" in rows[1]
    assert thresholds == [1, 1, 5, 5], "the network and its average, when they open and once more in the middle"
    assert float(trainer.network.query_gate.threshold.detach()) == -3.0, "what is set is not learned"


def test_gates_open_after_a_quarter_of_the_training_whatever_the_prune_head_knows(
    a_dataset: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = []
    config, options = waiting(rows, is_ready=lambda network: False)
    a_trainer(a_dataset, config, tmp_path / "run", **options).run()
    assert [row["gates"] for row in rows] == ["closed"] * 3 + ["hard"] * 7


def test_a_moment_that_was_judged_dense_is_not_chosen_once_gates_are_open(a_dataset: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    config, options = waiting(rows, set_threshold=lambda network: network.query_gate.threshold.data.fill_(7.0))
    trainer = a_trainer(a_dataset, config, tmp_path / "run", **options)
    trainer.gates.opens = lambda stage, share: len(rows) == 6  # later than a training would let them
    weights = trainer.run()
    assert [row["gates"] for row in rows if "dice" in row] == ["closed", "hard"]
    assert float(weights["query_gate.threshold"]) == 7.0


def test_a_training_whose_gates_wait_resumes_exactly_before_and_after_they_open(
    a_dataset: Path, tmp_path: Path
) -> None:
    def run(folder: str, stop: int | None = None, again: bool = False) -> Any:
        rows: list[dict[str, Any]] = []

        def stopping(row: dict[str, Any]) -> None:
            if row["epoch"] == stop:
                raise KeyboardInterrupt

        def settle(network: APFormer) -> None:
            network.query_gate.threshold.data.fill_(float(network.prune_head.weight.sum().detach()))

        config, options = waiting(rows, is_ready=lambda network: False, set_threshold=settle)
        trainer = a_trainer(a_dataset, config, tmp_path / folder, **{**options, "on_epoch": stopping})
        if again:
            trainer.resume()
        return trainer.run()

    expected = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("part", stop=2)  # closed
    with pytest.raises(KeyboardInterrupt):
        run("part", stop=5, again=True)  # hard
    resumed = run("part", again=True)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_a_configuration_whose_gates_wait_ends_with_a_threshold_that_meets_the_budget(
    a_dataset: Path, tmp_path: Path
) -> None:
    config, _ = waiting([])
    stages = tuple(replace(stage, epochs=4) for stage in config.stages)
    config = replace(config, stages=stages, pruning=replace(config.pruning, budget="keep=0.6", energy=0.0))
    network: Any = train(config, a_dataset, tmp_path / "run", device="cpu", workers=0).build_network()
    training, _ = prepared(a_dataset, config, tmp_path / "again")
    kept = kept_on_training_images(network, training)
    inside = foreground_inside(network, training)
    assert inside is not None and inside >= 0.995
    assert kept > 0, "more than the budget only where the ball asks for it"


def kept_on_training_images(network: APFormer, training: PreparedCases) -> float:
    """Mean share of tokens that the network keeps."""
    network.gating = "hard"
    with torch.no_grad():
        kept = [
            network.eval()(training.item(index)[0][None], auxiliaries=True)[1].kept for index in range(len(training))
        ]
    return float(torch.cat(kept).mean())


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_after_training_the_threshold_keeps_the_stated_share_of_the_training_images(
    a_dataset: Path, tmp_path: Path, share: float
) -> None:
    config = parse_config(settings(**{**GATED, "pruning": {**GATED["pruning"], "final_keep": share}}))
    torch.manual_seed(0)
    network = build_network(config.network, config.network_arguments)
    assert isinstance(network, APFormer)
    training, _ = prepared(a_dataset, config, tmp_path / "prepared")
    before = kept_on_training_images(network, training)
    small, weights = compacted(config, network.state_dict(), training)
    shipped = build_network(small.network, small.network_arguments)
    assert isinstance(shipped, APFormer)
    shipped.load_state_dict(weights)
    assert abs(before - share) > 0.1, "the learned threshold is elsewhere"
    assert kept_on_training_images(shipped, training) <= share
    with torch.no_grad():
        shipped.query_gate.threshold -= 0.001
    assert kept_on_training_images(shipped, training) > share, "the next lower threshold keeps more"


def test_what_is_decided_after_training_does_not_part_a_run_from_its_checkpoint(
    a_dataset: Path, tmp_path: Path
) -> None:
    learned = parse_config(settings(**GATED))
    train(learned, a_dataset, tmp_path / "run", device="cpu", workers=0)
    pruning = {**GATED["pruning"], "final_keep": 0.5, "energy": 0.2}
    moved = parse_config(settings(**{**GATED, "pruning": pruning, "version": "1.0.1"}))
    again = train(moved, a_dataset, tmp_path / "run", device="cpu", workers=0, resume=True)
    assert again.version == "1.0.1"
    other = parse_config(settings(**{**GATED, "pruning": {**pruning, "budget": "keep=0.5"}}))
    assert fingerprint(learned) == fingerprint(moved) != fingerprint(other)


@pytest.mark.parametrize("idle", [0.0, 0.99])
def test_idle_gates_are_removed_only_where_the_configuration_says_so(
    a_dataset: Path, tmp_path: Path, idle: float
) -> None:
    config = parse_config(settings(**{**GATED, "pruning": {**GATED["pruning"], "idle": idle}}))
    training, _ = prepared(a_dataset, config, tmp_path / "prepared")
    weights = build_network(config.network, config.network_arguments).state_dict()
    small, _ = compacted(config, weights, training)
    assert small.network_arguments["prune_keys"] == [idle == 0.0] * 2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pruning": {"budget": "keep=0.5", "final_keep": 0}}, "final_keep is 0;"),
        ({"pruning": {"budget": "keep=0.5", "final_keep": 1.5}}, "final_keep is 1.5"),
        ({"pruning": {"budget": "keep=0.5", "final_keep": "0.3"}}, "final_keep is '0.3'"),
        (
            {"network": SETTINGS["network"], "stages": SETTINGS["stages"], "pruning": {"budget": "1", "final_keep": 1}},
            "prune_queries",
        ),
        ({"pruning": {"budget": "keep=0.5", "idle": 1.0}}, "idle"),
        ({"network": SETTINGS["network"]}, "prune_queries"),
        ({"pruning": {"budget": "keep=2"}}, "keep is 2"),
        ({"pruning": {"budget": "keep=0.5", "energy": 1.0}}, "energy"),
        ({"stages": [{**GATED["stages"][0], "gates": "ajar"}]}, "ajar"),
    ],
)
def test_a_pruning_that_does_not_fit_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(settings(**{**GATED, **changes}))
