"""The joint search: masks, the ranking to a budget, and what is really cut."""

from __future__ import annotations

import copy

import pytest
import torch
from apformer.errors import ConfigError, PruningError
from apformer.networks import build_network
from apformer.networks.slimmed import slimmed_arguments
from apformer.pruning import count_macs, count_parameters
from apformer.pruning.joint_search import JointSearch
from apformer.pruning.search_pixels import PixelClassifier
from apformer.pruning.search_ranking import SearchBudget, cost
from joint_search_samples import ARGUMENTS, NAMES, SPARSE, a_network, a_search, decide_half, images, reachable
from torch.nn import functional as F

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", NAMES)
def test_blocks_in_their_searchable_form_compute_what_they_did(name: str) -> None:
    network, image = a_network(name), images(name)
    search = JointSearch(network, sample=image)
    with torch.no_grad():
        for block in search.blocks:
            block.patch_mask.fill_(20.0)  # tanh is 1
        torch.testing.assert_close(search(image), network(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_sliced_network_computes_what_the_masked_one_does_and_is_as_small_as_decided(name: str) -> None:
    search = a_search(name, pixel_channels=0)
    shares = (reachable(search, 0.3)[0], reachable(search, 0.8)[1])
    before, shape = a_network(name), (1, *images(name).shape[1:])
    kept = search.decide(SearchBudget(*shares))
    small = search.slice()
    with torch.no_grad():
        torch.testing.assert_close(small(images(name)), search(images(name)), rtol=1e-5, atol=1e-5)
    assert count_parameters(small) <= shares[0] * count_parameters(before)
    left = count_macs(small, shape).total / count_macs(before, shape).total
    assert shares[1] - 0.1 < left <= shares[1]
    for block, stays in zip(small.blocks, kept, strict=True):
        assert (block.dims, block.hidden) == (int(stays.dims.sum()), int(stays.hidden.sum()))
    assert any(not bool(stays.patches.all()) for stays in kept)


@pytest.mark.parametrize("name", ["apformer", "mobile_utr", "sparse_unetr", "transunet"])
def test_slices_agree_on_images_of_another_size(name: str) -> None:
    search = a_search(name)
    decide_half(search)
    image = images(name, size=(50, 80))
    with torch.no_grad():
        torch.testing.assert_close(search.slice()(image), search(image), rtol=1e-5, atol=1e-5)


def test_the_ranking_counts_exactly_what_is_left() -> None:
    search = a_search("transunet")
    kept = decide_half(search)
    small = search.slice()
    expected = cost(search.blocks, kept, search.whole)
    assert (count_parameters(small), count_macs(small, (1, 1, 64, 64)).total) == expected


@pytest.mark.parametrize("name", NAMES)
def test_what_a_search_has_left_is_searched_again_for_all_but_patches(name: str) -> None:
    first, image = a_search(name), images(name)
    decide_half(first)
    small = first.slice()
    again = JointSearch(small, sample=image)
    with torch.no_grad():
        torch.testing.assert_close(again(image), small(image), rtol=1e-5, atol=1e-5)
        for block in again.blocks:
            assert block.patch_mask is None
            block.dim_mask.uniform_(0.5, 1, generator=torch.Generator().manual_seed(3))
            block.hidden_mask.uniform_(0.5, 1, generator=torch.Generator().manual_seed(4))
    kept = again.decide(SearchBudget(*reachable(again, 0.4)))
    smaller = again.slice()
    with torch.no_grad():
        torch.testing.assert_close(smaller(image), again(image), rtol=1e-5, atol=1e-5)
    shape = (1, *image.shape[1:])
    assert (count_parameters(smaller), count_macs(smaller, shape).total) == cost(again.blocks, kept, again.whole)
    assert count_macs(smaller, shape).total < count_macs(small, shape).total
    assert smaller.plan()["patched"] == small.plan()["patched"] != []


def test_the_weakest_masks_of_all_layers_go_first_and_every_block_keeps_something() -> None:
    search = a_search("apformer", pixel_channels=0, patches=False)
    with torch.no_grad():
        search.blocks[0].hidden_mask.fill_(0.01)  # a whole layer at the end of the ranking
        search.blocks[0].hidden_mask[3] = 0.02
    kept = search.decide(SearchBudget(reachable(search, 0.5)[0], 1.0))
    assert kept[0].hidden.nonzero().flatten().tolist() == [3]
    masks = [torch.cat([block.dim_mask, block.hidden_mask]).abs() for block in search.blocks]
    gone = [torch.cat([~stays.dims, ~stays.hidden]) for stays in kept]
    assert all(float(mask[rows].sum()) == 0 for mask, rows in zip(masks, gone, strict=True))


def test_a_patch_that_a_later_block_works_on_is_kept_before() -> None:
    search = a_search("mobile_utr", pixel_channels=0)
    kept = search.decide(SearchBudget(*reachable(search, 0.7)))
    assert bool((kept[0].patches | ~kept[1].patches).all())
    assert int(kept[1].patches.sum()) < kept[1].patches.numel()


def test_every_block_has_patches_of_its_own() -> None:
    search = a_search("transunet", pixel_channels=0)
    decide_half(search)
    assert [int(block.patches.sum()) for block in search.slice().blocks] == [14, 12, 10]


def test_patches_stay_when_only_parameters_are_to_be_saved() -> None:
    search = a_search("transunet", pixel_channels=0)
    kept = search.decide(SearchBudget(reachable(search, 0.5)[0], 1.0))
    assert all(bool(stays.patches.all()) for stays in kept)


def test_a_pruned_patch_is_no_key_and_does_not_change() -> None:
    search = a_search("transunet", pixel_channels=0)
    block = search.blocks[0]
    patches = torch.ones(4, 4, dtype=torch.bool)
    patches[1, 2] = False
    block.decide(torch.ones(12, dtype=torch.bool), torch.ones(48, dtype=torch.bool), patches)
    tokens = torch.randn(16, 1, 24)
    changed = tokens.clone()
    changed[6] += 1.0
    search.session.begin((64, 64))
    with torch.no_grad():
        first, second = block(tokens), block(changed)
    assert torch.equal(first[6], tokens[6])
    others = [place for place in range(16) if place != 6]
    torch.testing.assert_close(first[others], second[others])


def test_one_weight_holds_for_all_masks_and_their_gradients_reach_them() -> None:
    search = JointSearch(a_network("apformer"), sample=images("apformer"), penalty=0.5)
    counts = sum(block.dims + block.hidden for block in search.blocks)
    patches = sum(block.patch_mask.numel() for block in search.blocks)
    expected = 0.5 * (counts + patches * torch.tanh(torch.tensor(3.0)))
    torch.testing.assert_close(search.penalty().detach(), expected)
    F.cross_entropy(search(images("apformer")), torch.zeros(2, 64, 64, dtype=torch.long)).backward()
    for block in search.blocks:
        assert all(float(m.grad.abs().sum()) > 0 for m in (block.dim_mask, block.hidden_mask, block.patch_mask))
    groups = search.parameter_groups(mask_rate=7.0)
    assert [group["rate"] for group in groups] == [1.0, 7.0]
    assert sum(len(group["params"]) for group in groups) == len(list(search.parameters()))


def test_training_under_the_penalty_shrinks_masks_that_the_task_does_not_need() -> None:
    torch.manual_seed(0)
    search = JointSearch(a_network("mobile_utr"), sample=images("mobile_utr"), penalty=1e-2, pixel_channels=0).train()
    optimiser = torch.optim.Adam([{**g, "lr": 3e-3 * g["rate"]} for g in search.parameter_groups()])
    image = images("mobile_utr")
    target = (image[:, 0] > 0).long()
    first = float(search.penalty().detach())
    for _ in range(6):
        optimiser.zero_grad()
        (F.cross_entropy(search(image), target) + search.penalty()).backward()
        optimiser.step()
    assert float(search.penalty().detach()) < 0.95 * first
    search.decide(SearchBudget(0.95, 1.0))
    assert float(search.penalty()) == 0.0
    assert len(search.parameter_groups()) == 1


def test_a_network_whose_blocks_see_different_tokens_is_searched_without_patches() -> None:
    torch.manual_seed(0)
    network = build_network("sparse_unetr", {**SPARSE, "prune_ratio": 0.5}).eval()
    image = images("sparse_unetr")
    with pytest.raises(PruningError):
        JointSearch(network, sample=image)
    search = JointSearch(network, sample=image, patches=False, pixel_channels=0)
    assert len(search.blocks) == 5  # four of the encoder, one of the assembly
    search.decide(SearchBudget(*reachable(search, 0.5)))
    small = search.slice()
    with torch.no_grad():
        torch.testing.assert_close(small(image), search(image), rtol=1e-5, atol=1e-5)
    assert count_macs(small, (1, 1, 64, 64)).total < count_macs(network, (1, 1, 64, 64)).total


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_a_slice_is_built_again_from_plain_data_and_weights(name: str) -> None:
    search = a_search(name)
    decide_half(search)
    small = search.slice()
    again = build_network("slimmed", slimmed_arguments(small, name, ARGUMENTS[name])).eval()
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        logits, auxiliaries = again(images(name), auxiliaries=True)
        assert torch.equal(logits, small(images(name)))
    assert 0 < float(auxiliaries.transformer_macs[0]) < search.whole.macs
    assert auxiliaries.kept.shape[0] == 2


def test_the_pixel_module_begins_as_the_identity_and_knows_no_number_of_classes() -> None:
    module = PixelClassifier(2, 1, 4)
    image, logits = torch.randn(2, 1, 8, 8), torch.randn(2, 5, 8, 8)
    assert torch.equal(module(image, logits), logits)
    torch.nn.init.ones_(module.judge.weight)
    few = module(image, logits[:, :3])
    assert few.shape == (2, 3, 8, 8)
    swapped = module(image, logits[:, [1, 0, 2]])
    torch.testing.assert_close(swapped[:, [1, 0, 2]], few)


def test_the_network_that_was_given_stays_as_it_was() -> None:
    network, image = a_network("MONAI UNETR"), images("MONAI UNETR")
    before = copy.deepcopy(network.state_dict())
    search = a_search("MONAI UNETR")
    decide_half(search)
    search.slice()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network(image).shape == (2, 2, 64, 48)


def test_what_cannot_be_searched_says_why() -> None:
    gated = build_network("apformer", {**ARGUMENTS["apformer"], "prune_queries": True})
    with pytest.raises(PruningError, match="has gates"):
        JointSearch(gated, sample=images("apformer"))
    with pytest.raises(PruningError, match="no transformer blocks"):
        JointSearch(torch.nn.Conv2d(1, 2, 3), sample=images("apformer"), patches=False)
    search = a_search("apformer")
    with pytest.raises(PruningError, match="has not decided"):
        search.slice()
    with pytest.raises(ConfigError, match="out of reach"):
        search.decide(SearchBudget(0.01, 1.0))
    with pytest.raises(ConfigError, match="share"):
        SearchBudget(parameters=0.0)
