"""Which network a fine-tuning trains: the base's, without its gates, with gates of its own, or cut to a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..bundles import Bundle
from ..errors import PruningError
from ..networks import build_network
from ..networks.pruned import pruned_arguments, without_gates
from ..pruning.joint_search import JointSearch
from ..pruning.plugin import prune_attention
from .design import Design
from .labels import LabelPlan

OWN_GATES = ("apformer", "leanformer")  # networks that are built with gates or without
GATES = "gates"  # learn from image to image what can be left out
SLICES = "slices"  # of matrices, cut out before the training; see `slicing`


@dataclass(frozen=True)
class Form:
    """A network as plain data. budget: how one is met, `GATES` or `SLICES`; None without a budget."""

    network: str
    arguments: dict[str, Any]
    budget: str | None = None


def choose_form(source: Bundle | Design, plan: LabelPlan, budget: str | None) -> Form:
    """The form of the new network: the base's, with its own outputs; without a budget it has no gates.

    Gates that were trained on other images are not taken over: what they prune on a new site's is not what they pruned
    there (`left-ventricle-cine-mr` 1.1.0 on ACDC: pooled Dice 0.83 with its gates, 0.88 with all tokens kept).

    With a budget it gets gates: APFormer and LeanFormer their own, others those of `prune_attention`. Where these
    cannot be, since blocks see different tokens or were cut by a search, the network is cut instead. They are query
    gates alone: dependency gates can only be learned while they are soft, which costs more than a dense network, and
    save little beside query gates; see docs/pruning.md.

    Raises:
        PruningError: a budget for a network without transformer blocks of a known kind.
    """
    given = source.network_name if isinstance(source, Bundle) else source.network
    name, arguments = without_gates(given, source.network_arguments if isinstance(source, Bundle) else source.arguments)
    arguments["out_channels"] = len(plan.labels) + 1
    for gates in ("prune_queries", "prune_keys"):
        arguments.pop(gates, None)
    if budget is None:
        return Form(name, arguments)
    if name in OWN_GATES:
        return Form(name, {**arguments, "prune_queries": True}, GATES)
    network = build_network(name, arguments).eval()
    sample = torch.zeros(1, source.channels, *source.preprocessing.patch_size)
    try:
        gated = prune_attention(network, sample=sample, prune_keys=False)
        return Form("pruned", pruned_arguments(gated, name, arguments), GATES)
    except PruningError:
        JointSearch(network, sample=sample, patches=False, pixel_channels=0)  # raises if there is nothing to cut
        return Form(name, arguments, SLICES)
