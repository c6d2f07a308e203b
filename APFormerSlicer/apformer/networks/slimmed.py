"""A registered network after a joint search (`pruning.joint_search`), as bundles keep it: plain data and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..pruning.search_block import SearchBlock, Session, take_apart
from ..pruning.search_network import SearchedNetwork
from ..pruning.search_pixels import PixelClassifier
from ..pruning.stack import TokenGrid


class Slimmed(SearchedNetwork):
    """What a search left of a network.

    Args:
        base: registered name of the network that was searched.
        plan: `SearchedNetwork.plan()`, which says what was left of each block.
        arguments: of the base.

    Example:
        >>> search = JointSearch(MobileUtr(in_channels=1, out_channels=2), sample=torch.zeros(1, 1, 64, 64))
        >>> search.decide(SearchBudget(parameters=0.8))
        >>> small = search.slice()
        >>> again = build_network("slimmed", slimmed_arguments(small, "mobile_utr", {"in_channels": 1, ...}))
        >>> again.load_state_dict(small.state_dict())
    """

    def __init__(self, base: str, plan: Mapping[str, Any], **arguments: object) -> None:
        from . import build_network  # imported late: this network is registered there

        if base == "slimmed":
            raise ValueError("the base must be a network that was not searched yet")
        network = build_network(base, arguments)
        where = plan["tokens"]
        session = Session(TokenGrid(int(where[0]), tuple(where[1]), int(where[2])) if where else None)
        blocks = {}
        for name, (dims, hidden) in plan["blocks"].items():
            parts = take_apart(name, network.get_submodule(name))
            device = parts.qkv.device
            if not (1 <= dims <= parts.qkv.shape[2] and 1 <= hidden <= parts.enter.shape[0]):
                raise ValueError(f"block {name!r} cannot have {dims} dimensions and {hidden} channels")
            kept = (torch.arange(dims, device=device), torch.arange(hidden, device=device))
            weights = (torch.ones(dims, device=device), torch.ones(hidden, device=device))
            grid = tuple(plan["grid"][0]) if name in plan["patched"] else None
            patches = None if grid is None else torch.ones(grid, dtype=torch.bool, device=device)
            blocks[name] = SearchBlock(parts.cut(*kept, *weights), session, patches)
        spatial, channels = int(arguments.get("spatial_dims", 2)), int(arguments.get("in_channels", 1))  # type: ignore[call-overload]
        pixels = PixelClassifier(spatial, channels, int(plan["pixels"])) if plan["pixels"] else None
        super().__init__(network, blocks, session, pixels)


def slimmed_arguments(slim: SearchedNetwork, base: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the registered network "slimmed" for a network that `JointSearch.slice` gave, and then trained on.

    Args:
        base, arguments: of the network that was searched. Name spatial_dims and in_channels among them.
    """
    return {**arguments, "base": base, "plan": slim.plan()}
