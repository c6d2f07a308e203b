"""Pruned attention: gates that learn, two forms that agree, costs that are true, parts that are removed."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict

import pytest
import torch
from apformer.errors import ConfigError
from apformer.networks import build_network
from apformer.networks.apformer import APFormer
from apformer.pruning import count_macs, count_parameters
from apformer.pruning.attention import LayerCost, attend, masked_layer, ragged_layer
from apformer.pruning.budget import Budget, Steering, dense_macs
from apformer.pruning.compact import compact, find_living, silence
from apformer.pruning.gates import DependencyGate, QueryGate, dilate
from apformer.pruning.idle import without_idle_gates
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SMALL = {"channels": (4, 4, 8, 16), "heads": 3, "head_dim": 8, "ffn_dim": 24, "depth": 3, "out_channels": 2}


def a_network(dims: int = 2, seed: int = 0, **arguments: object) -> APFormer:
    """A small prunable network whose attention is far from even, so that dependencies really drop."""
    torch.manual_seed(seed)
    size = (48, 40) if dims == 2 else (24, 16, 32)
    settings_ = {**SMALL, "spatial_dims": dims, "image_size": size, "prune_queries": True, "prune_keys": True}
    network = APFormer(**{**settings_, **arguments}).eval()
    with torch.no_grad():
        for layer in network.layers:
            layer.attention.to_qkv.weight.mul_(4.0)
            layer.attention.position.table.normal_(0, 0.5)
            layer.attention.to_out.bias.normal_()  # the bias is where masked and gathered forms part in released code
            if layer.attention.dependency is not None:
                layer.attention.dependency.gate.fill_(1.0)
    return network


def an_image(dims: int, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 1, *((48, 40) if dims == 2 else (24, 16, 32)), generator=generator)


def keep_share(network: APFormer, image: Tensor, share: float) -> None:
    """Set the threshold so that about `share` of the batch's tokens exceed it, before the ring."""
    network.gating = "off"
    with torch.no_grad():
        logits = network(image, auxiliaries=True)[1].prune_logits
        margin = (logits[:, 1] - logits[:, 0]).flatten()
        network.query_gate.threshold.fill_(margin.quantile(1 - share).item())


# The two forms


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    kinds=st.lists(st.sampled_from(["none", "some", "few", "all"]), min_size=4, max_size=4),
    gated=st.booleans(),
    every_key=st.booleans(),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_masked_and_ragged_layers_agree_for_any_mask_and_batch(
    seed: int, batch: int, kinds: list[str], gated: bool, every_key: bool
) -> None:
    network = a_network(seed=seed % 7)
    generator = torch.Generator().manual_seed(seed)
    count, share = 30, {"none": 0.0, "some": 0.5, "few": 0.1, "all": 1.0}
    tokens = torch.randn(batch, count, 16, generator=generator)
    kept = torch.stack([(torch.rand(count, generator=generator) < share[kind]).float() for kind in kinds[:batch]])
    alive = (torch.rand(batch, count, generator=generator) < 0.7).float()
    alive[:, slice(None) if every_key else 0] = (
        1.0  # a kept query always has a key: its own strongest of the layer before
    )
    bias = network.layers[0].attention.position((6, 5))
    with torch.no_grad():
        masked, rows = tokens, tokens
        masked_alive = alive
        queries = [sample.nonzero().flatten() for sample in kept]
        keys = [sample.nonzero().flatten() for sample in alive]
        for layer in network.layers:
            gate = layer.attention.dependency if gated else None
            masked, masked_alive, _, _ = masked_layer(layer, masked, kept, masked_alive, bias, gate)
            rows, keys = ragged_layer(layer, rows, queries, keys, bias, gate)
    assert torch.allclose(masked, rows, atol=1e-5)
    assert torch.equal(rows[kept == 0], tokens[kept == 0]), "a pruned token passes unchanged"
    for sample, numbers in enumerate(keys):
        if queries[sample].numel():
            assert torch.equal(masked_alive[sample].nonzero().flatten(), numbers)


def test_a_batch_that_attends_at_once_has_the_gradients_of_the_masked_form() -> None:
    """Images keep 3, 0 and 30 of 30 tokens; positions learn too."""
    network = a_network(prune_keys=False)
    layer, position = network.layers[0], network.layers[0].attention.position
    tokens = torch.randn(3, 30, 16, generator=torch.Generator().manual_seed(1))
    kept = torch.zeros(3, 30)
    kept[0, 4:7] = kept[2] = 1
    gradients = []
    for masked in (True, False):
        network.zero_grad()
        leaf = tokens.clone().requires_grad_()
        if masked:
            out = masked_layer(layer, leaf, kept, torch.ones_like(kept), position((6, 5)), None).tokens
        else:
            rows, every = [sample.nonzero().flatten() for sample in kept], [torch.arange(30)] * 3
            out, _ = ragged_layer(layer, leaf, rows, every, position((6, 5)), None)
        out.square().sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 8
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_attention_is_the_same_written_out_and_fused() -> None:
    """In bfloat16 it is written out while it learns; without gradients, torch's fused form runs."""
    q, k, v = torch.randn(3, 2, 3, 7, 8, generator=torch.Generator().manual_seed(2)).bfloat16().unbind(0)
    bias = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(3)).bfloat16()
    fused = attend(q, k, v, bias, 0.3)
    written_out = attend(q.requires_grad_(), k, v, bias, 0.3)
    torch.testing.assert_close(written_out, fused, rtol=0.05, atol=0.03)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("prune_keys", [True, (False, True, False)])
def test_the_network_gives_the_same_with_soft_and_hard_gates(
    dims: int, share: float, prune_keys: bool | tuple[bool, ...]
) -> None:
    network, image = a_network(dims, prune_keys=prune_keys), an_image(dims, 3)
    keep_share(network, image, share)
    with torch.no_grad():
        network.gating = "soft"
        soft, soft_work = network(image, auxiliaries=True)
        network.gating = "hard"
        hard, hard_work = network(image, auxiliaries=True)
    assert torch.allclose(soft, hard, atol=1e-5)
    assert torch.equal(soft_work.kept, hard_work.kept)
    assert torch.allclose(soft_work.transformer_macs, hard_work.transformer_macs, rtol=1e-5)


def test_a_network_that_prunes_everything_skips_its_transformer() -> None:
    network, image = a_network(), an_image(2, 2)
    with torch.no_grad():
        network.query_gate.threshold.fill_(1e4)
        logits, work = network(image, auxiliaries=True)
        for layer in network.layers:
            for parameter in layer.parameters():
                parameter.fill_(math.nan)
        again = network(image)
    assert work.kept.sum() == 0 and work.transformer_macs.sum() == 0
    assert torch.equal(logits, again)


def test_a_network_that_keeps_everything_and_prunes_no_keys_is_the_dense_network() -> None:
    network, image = a_network(prune_keys=False), an_image(2, 2)
    with torch.no_grad():
        network.query_gate.threshold.fill_(-1e4)
        hard = network(image)
        network.gating = "off"
        assert torch.equal(hard, network(image))


def test_each_image_of_a_batch_is_pruned_as_if_it_were_alone() -> None:
    network, image = a_network(), an_image(2, 4)
    keep_share(network, image, 0.2)
    network.gating = "hard"
    with torch.no_grad():
        together, work = network(image, auxiliaries=True)
        alone = torch.cat([network(one[None]) for one in image])
    assert len(set(work.kept.flatten(1).sum(1).tolist())) > 1, "the images need differently many tokens"
    assert torch.allclose(together, alone, atol=1e-5)


def test_hard_gates_run_under_autocast() -> None:
    network, image = a_network(), an_image(2, 2)
    keep_share(network, image, 0.3)
    network.gating = "hard"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network(image).float()
    with torch.no_grad():
        assert (half - network(image)).abs().mean() < 0.05


# Gates


def test_every_gate_receives_a_gradient_from_the_segmentation_alone() -> None:
    network, image = a_network(), an_image(2, 2)
    keep_share(network, image, 0.3)
    network.gating = "soft"
    network(image).square().mean().backward()
    gates = [module for module in network.modules() if isinstance(module, QueryGate | DependencyGate)]
    assert len(gates) == 1 + SMALL["depth"]
    for gate in gates:
        for name, parameter in gate.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_prune_head_is_taught_by_labels_alone_not_by_the_budget() -> None:
    network, image = a_network(), an_image(2, 1)
    network.gating = "soft"
    _, work = network(image, auxiliaries=True)
    (work.transformer_macs.mean()).backward()
    assert network.query_gate.threshold.grad.abs() > 0
    assert network.prune_head.weight.grad is None


def test_a_higher_threshold_costs_less_and_the_gradient_says_so() -> None:
    network, image = a_network(), an_image(2, 2)
    keep_share(network, image, 0.3)
    network.gating = "soft"
    network(image, auxiliaries=True)[1].transformer_macs.mean().backward()
    assert network.query_gate.threshold.grad < 0
    for layer in network.layers[:-1]:  # the last layer's keys feed nobody
        assert layer.attention.dependency.gate.grad < 0


def test_frozen_gates_leave_hard_training_with_gradients_for_the_weights() -> None:
    network, image = a_network(), an_image(2, 2)
    keep_share(network, image, 0.3)
    network.gating = "hard"
    network(image).square().mean().backward()
    assert network.layers[1].attention.to_qkv.weight.grad.abs().sum() > 0
    assert network.layers[1].attention.dependency.gate.grad is None


def test_the_safety_ring_is_one_token_wide_and_stays_inside_the_image() -> None:
    one = torch.zeros(1, 4, 5)
    one[0, 0, 2] = 1
    expected = torch.zeros(1, 4, 5)
    expected[0, 0:2, 1:4] = 1
    assert torch.equal(dilate(one, 1), expected)
    assert torch.equal(dilate(one, 0), one)
    assert dilate(torch.ones(1, 3, 3, 3), 2).sum() == 27


def test_the_dependency_threshold_follows_the_papers_formula() -> None:
    gate = DependencyGate(4)
    queries = torch.randn(2, 4)
    with torch.no_grad():
        gate.gate.fill_(0.0)
        expected = torch.sigmoid(queries @ gate.weight.weight[0]) * 0.5
        assert torch.allclose(gate(queries)[:, 0], expected)


def test_published_parameter_counts_hold_with_all_gates() -> None:
    # 2,638,585 without prune head + 258 prune head + 512 dependency weights = 2,639,355, and 4 gates + 1 threshold
    assert count_parameters(APFormer(prune_queries=True, prune_keys=True)) == 2_639_355 + 4 + 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"prune_keys": True},
        {"prune_keys": [False, True, False, False]},
        {"prune_queries": True, "prune_keys": [True, False]},
        {"prune_queries": True, "prune_head": False},
        {"safety_ring": -1},
        {"layer_shapes": [[1, 2, 3]]},
        {"layer_shapes": [[1, 2, 3, 0]] * 4},
    ],
)
def test_pruning_arguments_that_contradict_each_other_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build_network("apformer", arguments)


# Cost and budget


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_cost_is_what_a_counter_sees(dims: int, share: float) -> None:
    network = a_network(dims)
    image = torch.zeros(1, 1, *an_image(dims, 1).shape[2:])  # what count_macs runs on
    torch.manual_seed(1)
    with torch.no_grad():
        network.prune_head.bias.zero_()
        for block in (network.level1, network.level2, network.level3, network.level4):
            for module in block.modules():
                if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                    module.bias.normal_()  # so that padding makes the tokens of an empty image differ
    keep_share(network, image, share)
    network.gating = "hard"
    with torch.no_grad():
        spent = network(image, auxiliaries=True)[1].transformer_macs.item()
    whole = count_macs(network, image.shape).total
    with torch.no_grad():
        network.query_gate.threshold.fill_(1e6)
    rest = count_macs(network, image.shape).total
    dot_products = 0.01 * spent  # w . q, left out of the cost: one in 2 * width of a query's work
    assert abs(whole - rest - spent) <= dot_products


def test_the_published_network_costs_what_the_paper_leaves_out() -> None:
    network = APFormer(prune_queries=True, prune_keys=True)
    assert dense_macs(network.costs, 1024) / 1e9 == pytest.approx(8.59, abs=0.02)


@pytest.mark.parametrize(
    ("text", "keep", "speed"),
    [("0.3", 0.3, None), ("keep=1", 1.0, None), ("2x", None, 2.0), ("speed=1.5x", None, 1.5), ("speed=3", None, 3.0)],
)
def test_a_budget_is_read_from_words(text: str, keep: float | None, speed: float | None) -> None:
    assert Budget.parse(text) == Budget(keep=keep, speed=speed)
    assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)


@pytest.mark.parametrize("text", ["0", "1.1", "-0.3", "keep=2x", "0.5x", "fast", "", "nan", "keep=0", "speed=0"])
def test_a_budget_out_of_range_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Budget.parse(text)
    assert caught.value.remedy


def test_a_budget_of_everything_is_the_dense_cost_and_half_the_tokens_cost_less_than_half() -> None:
    costs = APFormer().costs
    dense = dense_macs(costs, 1024)
    assert Budget(keep=1.0).transformer_macs(costs, 1024, True, 0) == dense
    assert Budget(keep=0.5).transformer_macs(costs, 1024, True, 0) < 0.5 * dense
    assert Budget(speed=2).transformer_macs(costs, 1024, True, 0) == pytest.approx(dense / 2)


def test_a_speed_that_the_convolutions_alone_exceed_is_refused_with_the_limit() -> None:
    costs = APFormer().costs
    with pytest.raises(ConfigError, match=r"2\.00x"):
        Budget(speed=3).transformer_macs(costs, 1024, True, round(dense_macs(costs, 1024)))


@pytest.mark.parametrize("speed", [1.0, 1.2, 1.5])
def test_the_share_that_a_speed_allows_to_keep_costs_what_the_speed_allows(speed: float) -> None:
    costs, tokens, other = [LayerCost(900, 300, 20), LayerCost(500, 300, 20)], 64, 150_000
    share = Budget(speed=speed).kept_share(costs, tokens, other)
    spent = other + sum(cost.macs(share * tokens, tokens) for cost in costs)
    assert spent == pytest.approx((other + dense_macs(costs, tokens)) / speed)
    assert Budget(keep=0.3).kept_share(costs, tokens, other) == 0.3


def test_a_speed_that_no_share_gives_is_refused_with_the_limit() -> None:
    """Every token stays a key, which costs 38,400 of 477,440."""
    costs = [LayerCost(900, 300, 20), LayerCost(500, 300, 20)]
    with pytest.raises(ConfigError, match="out of reach") as caught:
        Budget(speed=9.0).kept_share(costs, 64, 150_000)
    assert "less than" in str(caught.value.remedy)


def test_steering_meets_the_budget_on_average_and_lets_images_differ() -> None:
    """A learnable price against a wish for more: two images, one needs thrice the other, the mean may be 1."""
    need = torch.tensor([0.5, 1.5]) * 4
    restraint = torch.nn.Parameter(torch.tensor(0.0))
    optimiser = torch.optim.SGD([restraint], lr=0.05)
    steering = Steering(rate=0.005)
    for _ in range(2000):
        spent = need * torch.exp(-restraint)
        loss = -0.3 * spent.log().mean() + steering.loss(spent, target=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert spent.mean().item() == pytest.approx(1.0, abs=0.1)
    assert (spent[1] / spent[0]).item() == pytest.approx(3.0)


def test_steering_costs_nothing_below_the_budget() -> None:
    steering = Steering()
    spent = torch.tensor([0.2, 0.4], requires_grad=True)
    steering.loss(spent, target=1.0).backward()
    assert spent.grad.abs().sum() == 0


# Removing what is dead


def with_dead_parts(network: APFormer) -> APFormer:
    """Head 1 of layer 0, key channel 2 of layer 1, value channel 3 of every head of layer 1, hidden channel 5 of 2."""
    with torch.no_grad():
        first, second, third = network.layers
        first.attention.to_out.weight[:, 8:16] = 0
        second.attention.to_qkv.weight.view(3, 3, 8, 16)[0, :, 2] = 0
        second.attention.to_out.weight.view(16, 3, 8)[:, :, 3] = 0
        third.ffn[0].weight[5] = 0
        third.ffn[0].bias[5] = -1
    return network


@pytest.mark.parametrize("gating", ["off", "hard"])
@pytest.mark.parametrize("dims", [2, 3])
def test_dead_heads_and_channels_are_found_and_removed_without_a_trace(dims: int, gating: str) -> None:
    network, image = with_dead_parts(a_network(dims)), an_image(dims, 3)
    keep_share(network, image, 0.4)
    network.gating = gating
    living = find_living(network, [image])
    small = compact(network, living)
    assert living[0].heads == (0, 2)
    assert living[1].keys == (0, 1, 3, 4, 5, 6, 7)
    assert all(channels == (0, 1, 2, 4, 5, 6, 7) for channels in living[1].values)
    assert 5 not in living[2].ffn
    assert count_parameters(small) < count_parameters(network)
    with torch.no_grad():
        assert torch.allclose(small(image), network(image), atol=1e-5)


def test_removing_some_energy_gives_exactly_the_silenced_network() -> None:
    network, image = a_network(), an_image(2, 3)
    keep_share(network, image, 0.4)
    network.gating = "hard"
    living = find_living(network, [image], energy=0.3)
    small, silenced = compact(network, living), silence(network, living)
    assert count_parameters(small) < 0.9 * count_parameters(network)
    with torch.no_grad():
        assert torch.allclose(small(image), silenced(image), atol=1e-5)
        assert not torch.allclose(small(image), network(image), atol=1e-5)


def test_a_compact_network_without_idle_gates_is_rebuilt_from_its_configuration() -> None:
    network, image = a_network(), an_image(2, 2)
    leaner = without_idle_gates(network, [image[:1], image[1:]], 0.05)
    assert sum(leaner.config.key_gates) < sum(network.config.key_gates)
    small = compact(leaner, find_living(leaner, [image], energy=0.3))
    shapes = [list(shape) for shape in small.config.layer_shapes]  # as JSON brings them
    again = build_network(
        "apformer",
        {**asdict(network.config), "prune_keys": list(small.config.key_gates), "layer_shapes": shapes},
    )
    again.load_state_dict(copy.deepcopy(small.state_dict()))
    with torch.no_grad():
        assert torch.equal(again.eval()(image), small(image))


def test_gates_that_drop_no_key_and_the_last_one_are_removed_and_the_one_that_saves_stays() -> None:
    network, images = a_network(safety_ring=0), [image[None] for image in an_image(2, 3)]
    keep_share(network, torch.cat(images), 0.1)
    network.gating = "hard"
    first, second, _ = network.layers
    with torch.no_grad():
        first.attention.to_qkv.weight.mul_(4.0)  # attention so uneven that few keys live
        second.attention.dependency.gate.fill_(-30.0)
        spent = network(images[0], auxiliaries=True)[1].transformer_macs.item()
        leaner = without_idle_gates(network, images, 0.05)
        assert leaner.config.key_gates == (True, False, False)
        assert leaner(images[0], auxiliaries=True)[1].transformer_macs.item() <= 1.05**2 * spent
        first.attention.dependency.gate.fill_(-30.0)
        network.layers[2].attention.dependency = None
        emptied = without_idle_gates(network, images, 0.05)
        assert emptied.config.key_gates == (False, False, False)
        assert torch.allclose(emptied(images[0]), network(images[0]), atol=1e-5)
