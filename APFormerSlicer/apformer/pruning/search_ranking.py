"""One ranking over all layers and kinds: what goes first, until a network is as small and as light as asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from .search_block import SearchBlock


@dataclass(frozen=True)
class SearchBudget:
    """What a search may leave of the whole network, convolutions included.

    Args:
        parameters: share of the parameters, above 0 and up to 1.
        macs: share of the multiply-accumulates of an image of the sample's size, products of activations included.

    Raises:
        ConfigError: a share out of range.
    """

    parameters: float = 1.0
    macs: float = 1.0

    def __post_init__(self) -> None:
        for name in ("parameters", "macs"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise ConfigError(
                    f"The budget asks for {share:g} of the {name}.",
                    "It cannot serve as a budget.",
                    "Give a share above 0 and up to 1, such as 0.7.",
                )


class Kept(NamedTuple):
    """Of one block: dims (d,), hidden (h,), patches (*base grid) or None; bool, True stays."""

    dims: Tensor
    hidden: Tensor
    patches: Tensor | None


class Whole(NamedTuple):
    """Of the network before the search, for one image of the sample's size, and what the search adds to it.

    tokens: of each block; leading: of them, those without a place on the image.
    """

    parameters: int
    macs: int
    added_parameters: int
    added_macs: int
    tokens: tuple[int, ...]
    leading: int


def rank(blocks: Sequence[SearchBlock], whole: Whole, budget: SearchBudget) -> list[Kept]:
    """The fewest removals, in the order of their masks, that meet the budget.

    All masks are ranked together by their absolute value (patches: by tanh, at least what later blocks give the same
    patch: a block works on every patch that a later one works on). When only parameters are still to be saved, patches,
    which have none, stay. Every block keeps at least one dimension, channel and patch.

    Raises:
        ConfigError: everything that can go together is not enough.
    """
    ranks = _ranks(blocks)
    count = sum(sum(part.numel() for part in each if part is not None) for each in ranks)

    def left(weights: int, patches: int) -> list[Kept]:
        kept = []
        for each in ranks:
            rows = None if each.patches is None else _some(each.patches, patches)
            kept.append(Kept(_some(each.dims, weights), _some(each.hidden, weights), rows))
        return _nested(kept)

    def spent(weights: int, patches: int) -> tuple[float, float]:
        return cost(blocks, left(weights, patches), whole)

    allowed = (budget.parameters * whole.parameters, budget.macs * whole.macs)
    least = spent(count, count)
    if least[0] > allowed[0] or least[1] > allowed[1]:
        raise ConfigError(
            f"The budget is out of reach: {budget.parameters:.0%} of the parameters and {budget.macs:.0%} of the "
            "multiply-accumulates.",
            f"With one dimension, channel and patch left in every block, {least[0] / whole.parameters:.0%} and "
            f"{least[1] / whole.macs:.0%} remain.",
            "Ask for less, or search a network with less outside its transformer blocks.",
        )
    weights = patches = _first(count, lambda cut: spent(cut, cut)[1] <= allowed[1])
    needed = _first(count, lambda cut: spent(cut, patches)[0] <= allowed[0])
    if needed > weights:
        weights = needed
        patches = _first(count, lambda cut: spent(weights, cut)[1] <= allowed[1])
    return left(weights, patches)


def cost(blocks: Sequence[SearchBlock], kept: Sequence[Kept], whole: Whole) -> tuple[float, float]:
    """(parameters, multiply-accumulates) of the network with these parts of its blocks."""
    parameters = float(whole.parameters + whole.added_parameters)
    macs = float(whole.macs + whole.added_macs)
    for block, stays, count in zip(blocks, kept, whole.tokens, strict=True):
        dims, hidden = int(stays.dims.sum()), int(stays.hidden.sum())
        tokens = count if stays.patches is None else whole.leading + int(stays.patches.sum())
        per_dim = block.heads * (4 * block.width + (3 if block.to_qkv.bias is not None else 0))
        per_hidden = 2 * block.width + (1 if block.enter.bias is not None else 0)
        parameters -= (block.dims - dims) * per_dim + (block.hidden - hidden) * per_hidden
        before = block.cost.macs(count, count)
        inner = block.heads * dims
        after = tokens * (4 * inner * block.width + 2 * block.width * hidden) + 2 * inner * tokens**2
        macs -= float(before) - after
    return parameters, macs


class _Ranks(NamedTuple):
    """The places of a block's masks in the ranking of all, least first."""

    dims: Tensor
    hidden: Tensor
    patches: Tensor | None


@torch.no_grad()
def _ranks(blocks: Sequence[SearchBlock]) -> list[_Ranks]:
    values: list[Tensor] = []
    later: Tensor | None = None
    patches: list[Tensor | None] = []
    for block in reversed(blocks):
        own = None if block.patch_mask is None else block.patch_weights().flatten()
        later = own if later is None or own is None else torch.maximum(later, own)
        patches.append(later)
    for block, rows in zip(blocks, reversed(patches), strict=True):
        assert block.dim_mask is not None and block.hidden_mask is not None
        values += [block.dim_mask.abs(), block.hidden_mask.abs(), *([] if rows is None else [rows])]
    order = torch.cat([value.float().cpu() for value in values]).argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel())
    parts = list(places.split([value.numel() for value in values]))
    ranks = []
    for block in blocks:
        dims, hidden = parts.pop(0), parts.pop(0)
        rows = None if block.patch_mask is None else parts.pop(0).reshape(block.patch_mask.shape)
        ranks.append(_Ranks(dims, hidden, rows))
    return ranks


def _some(places: Tensor, cut: int) -> Tensor:
    """Those from the place `cut` on, at least the last one."""
    return places >= min(cut, int(places.max()))


def _nested(kept: Sequence[Kept]) -> list[Kept]:
    """A block works on every patch that a later one works on."""
    settled: list[Kept] = []
    later: Tensor | None = None
    for stays in reversed(kept):
        if stays.patches is not None:
            later = stays.patches if later is None else later | stays.patches
        settled.append(stays._replace(patches=later))
    return settled[::-1]


def _first(count: int, enough: Callable[[int], bool]) -> int:
    """The smallest number from 0 to `count` that is enough; what is enough stays so."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
