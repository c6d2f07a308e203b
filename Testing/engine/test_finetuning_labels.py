"""Labels of a fine-tuned model: always by name; what the base knows goes to the right place of the new network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import Bundle, ModelLibrary
from apformer.datasets.table import make_table
from apformer.errors import ConfigError
from apformer.finetuning.labels import plan_labels, relabelled
from apformer.finetuning.request import Request

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning.form import choose_form
from apformer.finetuning.heads import NEW_LOGIT, grown_weights
from apformer.networks import build_network
from apformer.pruning.gates import DependencyGate
from finetune_samples import a_base

TABLE = make_table(["4=Ball,7=Hole,9=Ring"])


@pytest.fixture
def ball(tmp_path: Path) -> Bundle:
    """A model of one label, Ball."""
    return a_base(ModelLibrary([tmp_path / "models"]))


def request(**changes: Any) -> Request:
    return Request(Path("site"), **{"name": "new", "base": "ball", **changes})


def names(plan: Any) -> list[str]:
    return [label.name for label in plan.labels]


def test_equal_names_are_the_same_structure_and_new_ones_are_added(ball: Bundle) -> None:
    plan = plan_labels(TABLE, {4, 7}, ball, request())
    assert names(plan) == ["Ball", "Hole"]
    assert [label.value for label in plan.labels] == [1, 2]
    assert plan.site_values == {4: 1, 7: 2}
    assert plan.base_channels == {1: 1} and plan.has_new
    assert not plan_labels(TABLE, {4}, ball, request(labels=("Ball",))).has_new
    assert plan.how == ("kept", "new")


def test_a_mapped_label_keeps_the_name_and_colour_of_the_base(ball: Bundle) -> None:
    plan = plan_labels(TABLE, {7}, ball, request(labels=("Hole",), mapping={"Hole": "Ball"}))
    assert names(plan) == ["Ball"]
    assert plan.site_values == {7: 1}
    assert plan.labels[0].color == ball.labels[0].color


def test_names_that_differ_in_case_and_blanks_are_one_structure(ball: Bundle) -> None:
    table = make_table(["4= bALL ,7=Hole"])
    plan = plan_labels(table, {4, 7}, ball, request())
    assert names(plan) == ["Ball", "Hole"] and plan.base_channels == {1: 1} and plan.site_values == {4: 1, 7: 2}
    chosen = plan_labels(table, {4, 7}, ball, request(labels=("HOLE",), mapping={"hole": "BALL"}))
    assert names(chosen) == ["Ball"] and chosen.site_values == {7: 1}
    with pytest.raises(ConfigError, match="would both be Ball"):
        plan_labels(table, {4, 7}, ball, request(mapping={"hole": "ball"}))


def test_what_the_site_does_not_label_is_kept_from_the_base_unless_it_is_replaced(ball: Bundle) -> None:
    kept = plan_labels(TABLE, {7}, ball, request(labels=("Hole",)))
    assert names(kept) == ["Ball", "Hole"]
    assert kept.unlabelled == {1}
    assert kept.judged == {2: "Hole"}
    replaced = plan_labels(TABLE, {7}, ball, request(labels=("Hole",), replace=True))
    assert names(replaced) == ["Hole"]
    assert replaced.base_channels == {}


def test_only_labels_that_occur_are_trained_when_none_are_named(ball: Bundle) -> None:
    assert names(plan_labels(TABLE, {4}, ball, request())) == ["Ball"]


def test_from_scratch_the_table_alone_counts() -> None:
    plan = plan_labels(TABLE, {4, 7, 9}, None, request(base=None))
    assert names(plan) == ["Ball", "Hole", "Ring"]
    assert plan.base_channels == {}


@pytest.mark.parametrize(
    ("changes", "occurring", "complaint"),
    [
        ({"labels": ("Cube",)}, {4}, "no label 'Cube'"),
        ({}, set(), "None of the completed cases"),
        ({"labels": ("Ball", "Hole")}, {4}, "None of the completed cases holds a voxel of Hole"),
        ({"mapping": {"Hole": "Cube"}}, {4, 7}, "base has no label 'Cube'"),
        ({"mapping": {"Cube": "Ball"}}, {4}, "no label 'Cube' to map"),
        ({"mapping": {"Hole": "Ball"}}, {4, 7}, "would both be Ball"),
    ],
)
def test_labels_that_cannot_be_are_named(
    ball: Bundle, changes: dict[str, Any], occurring: set[int], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        plan_labels(TABLE, occurring, ball, request(**changes))


def test_values_of_the_site_become_those_of_the_model() -> None:
    assert relabelled(np.array([0, 4, 7, 9]), {4: 1, 7: 2}).tolist() == [0, 1, 2, 0]


def test_outputs_of_the_base_move_with_their_names_and_new_ones_begin_below_the_background(ball: Bundle) -> None:
    arguments = {**ball.network_arguments, "out_channels": 4}
    grown = grown_weights(ball, "apformer", arguments, {1: 2}, seed=0)
    old = ball.build_network().state_dict()
    network = build_network(ball.network_name, arguments)
    network.load_state_dict(grown)
    image = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = ball.build_network()(image)
        after = network.eval()(image)
    torch.testing.assert_close(after[:, [0, 2]], before, msg="old structures are found as before")
    assert float((after[:, [1, 3]] - after[:, :1]).mean()) == pytest.approx(NEW_LOGIT, abs=0.2)
    assert not torch.equal(grown["head.weight"][1], grown["head.weight"][3]), "new structures can be told apart"
    assert torch.equal(grown["level1.0.weight"], old["level1.0.weight"])


def test_a_base_without_gates_gets_untrained_ones_and_is_otherwise_unchanged(ball: Bundle) -> None:
    arguments = {**ball.network_arguments, "prune_queries": True, "prune_keys": True}
    network = build_network(ball.network_name, arguments)
    network.load_state_dict(grown_weights(ball, "apformer", arguments, {1: 1}, seed=0))
    network.gating = "off"
    image = torch.zeros(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), ball.build_network()(image))


@pytest.mark.parametrize("budget", ["keep=0.5", None])
def test_with_a_budget_a_network_gets_query_gates_and_no_dependency_gates(ball: Bundle, budget: str | None) -> None:
    plan: Any = SimpleNamespace(labels=("Ball", "Hole"))
    form = choose_form(ball, plan, budget)
    network: Any = build_network(form.network, form.arguments)
    assert (network.query_gate is not None) == (budget is not None)
    assert not any(isinstance(module, DependencyGate) for module in network.modules())


def test_a_base_of_other_widths_is_refused(ball: Bundle) -> None:
    with pytest.raises(ConfigError, match="no fitting"):
        grown_weights(ball, "apformer", {**ball.network_arguments, "ffn_dim": 12}, {1: 1}, seed=0)
