"""A registered network with gates in front of its transformer blocks (`pruning.plugin`), as bundles keep it: plain data
and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..pruning.adapters import view_class
from ..pruning.plugin import PrunedNetwork
from ..pruning.stack import Stack, TokenGrid

OWN = ("base", "plan")  # arguments of `Pruned` that are not its base's


class Pruned(PrunedNetwork):
    """A network with the gates of `prune_attention`.

    Args:
        base: registered name of the network.
        plan: `PrunedNetwork.plan()`, which says where the gates are.
        arguments: of the base.

    Example:
        >>> gated = prune_attention(MobileUtr(in_channels=1, out_channels=2), sample=torch.zeros(1, 1, 64, 64))
        >>> arguments = pruned_arguments(gated, "mobile_utr", {"in_channels": 1, "out_channels": 2})
        >>> build_network("pruned", arguments).load_state_dict(gated.state_dict())
    """

    def __init__(self, base: str, plan: Mapping[str, Any], **arguments: object) -> None:
        from . import build_network  # imported late: this network is registered there

        if base == "pruned":
            raise ValueError("the base must be a network without gates of this kind")
        network = build_network(base, arguments)
        views = []
        for name in plan["blocks"]:
            block = network.get_submodule(name)
            kind = view_class(block)
            if kind is None:
                raise ValueError(f"{name!r} ({type(block).__name__}) is no transformer block of a known kind")
            views.append(kind(name, block))
        leading, stride, width = plan["tokens"]
        grid = TokenGrid(int(leading), tuple(int(step) for step in stride), int(width))
        if not views or leading not in (0, 1) or min(grid.stride) < 1:
            raise ValueError("the plan names no blocks, or no grid of tokens")
        super().__init__(network, Stack(views, grid), bool(plan["prune_keys"]), int(plan["safety_ring"]))


def pruned_arguments(network: PrunedNetwork, base: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the registered network "pruned" for what `prune_attention` gave.

    Args:
        base, arguments: of the network that was given gates.
    """
    return {**arguments, "base": base, "plan": network.plan()}


def without_gates(name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Registered name and arguments of the network that is behind the gates of "pruned"; others as they are."""
    if name != "pruned":
        return name, dict(arguments)
    return str(arguments["base"]), {key: value for key, value in arguments.items() if key not in OWN}
