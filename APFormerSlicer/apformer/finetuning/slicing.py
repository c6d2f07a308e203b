"""Meeting a budget at once, before training: what matters least on the site's own cases is cut out of the blocks.

For networks that gates cannot be put into: a token-sparse encoder, whose blocks see different tokens, and what a joint
search has cut before. Attention dimensions and hidden channels are ranked as a search ranks them (`search_ranking`), by
what leaving them out would change: the squared slope of the loss towards a factor of 1 in front of each, summed over
training images (Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019, eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pruning.budget import Budget
from ..pruning.joint_search import JointSearch
from ..pruning.search_network import SearchedNetwork
from ..pruning.search_ranking import SearchBudget
from ..training.augment import fit
from ..training.cases import PreparedCases

IMAGES = 32  # over which slopes are summed


def sliced(
    network: nn.Module,
    images: Iterable[tuple[Tensor, Tensor]],
    sample: Tensor,
    budget: Budget,
    check: Callable[[], None],
) -> SearchedNetwork:
    """What a budget leaves of a trained network.

    Args:
        network: on the CPU; it stays as it is.
        images: (image (C, *size), labels (1, *size)) of training cases.
        sample: (1, C, *size), of the size that operations are counted for.
        budget: `keep` a share of tokens: the blocks may need the operations that they would for these tokens; or
            `speed`, of the whole network.

    Raises:
        PruningError: it has no blocks that can be cut.
        ConfigError: the budget is out of reach.
    """
    search = JointSearch(network, sample=sample, patches=False, pixel_channels=0).eval()
    allowed = allowed_share(search, budget)
    masks = [mask for block in search.blocks for mask in (block.dim_mask, block.hidden_mask) if mask is not None]
    found = [torch.zeros_like(mask) for mask in masks]
    for image, label in images:
        check()
        loss = F.cross_entropy(search(image[None]), label.long())
        for total, slope in zip(found, torch.autograd.grad(loss, masks), strict=True):
            total += slope.square()
    with torch.no_grad():
        for mask, total in zip(masks, found, strict=True):
            mask.copy_(total)
        search.decide(SearchBudget(macs=allowed))
        for mask in masks:
            mask.fill_(1.0)  # what stays stays as it is
    return search.slice()


def allowed_share(search: JointSearch, budget: Budget) -> float:
    """Of the multiply-accumulates of the network as it is, what the budget allows."""
    whole = float(search.whole.macs)
    if budget.speed is not None:
        return 1 / budget.speed
    assert budget.keep is not None
    spent = allowed = 0.0
    for block, tokens in zip(search.blocks, search.whole.tokens, strict=True):
        kept = budget.keep * tokens
        spent += float(block.cost.macs(tokens, tokens))
        allowed += float(block.cost.macs(kept, kept))
    return (whole - spent + allowed) / whole


def examples(cases: PreparedCases) -> Iterable[tuple[Tensor, Tensor]]:
    """At least `IMAGES` images where there are so many, evenly over prepared cases, as the network meets them."""
    patch = cases.preprocessing.patch_size
    for index in range(0, len(cases), max(1, len(cases) // IMAGES)):
        image, label = cases.item(index)
        size = [max(a, b) for a, b in zip(image.shape[1:], patch, strict=True)]
        yield fit(image, size), fit(label[:1].float(), size)
