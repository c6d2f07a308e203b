"""The network of the new model, beginning with what the base has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..bundles import Bundle
from ..errors import ConfigError
from ..networks import build_network
from ..pruning.gates import DependencyGate, QueryGate
from ..pruning.plugin import PruneHead

# A new structure begins as a part of the background that is a little less likely than the rest: its logit is that of
# the background, less this. It neither drowns what the base knows nor has to be found from noise.
NEW_LOGIT = -2.0
BEHIND_GATES = "network."  # begins the names of a network's tensors in `networks.pruned`
NEW_NOISE = 0.02  # relative to the background's weights: breaks the tie between several new structures


def grown_weights(
    base: Bundle, name: str, arguments: Mapping[str, Any], channels: Mapping[int, int], seed: int
) -> dict[str, Tensor]:
    """Weights of a new network, taken from `base` wherever it has them.

    Args:
        name, arguments: of the same network as the base's, with other outputs, with gates or without.
        channels: output channel of the base -> of the new network, background left out; other outputs are new.
        seed: of the noise that tells new outputs apart, and of new gates.

    Raises:
        ConfigError: the networks differ in more than outputs and gates.
    """
    old = base.build_network().state_dict()
    if name == "pruned" != base.network_name:
        old = {f"{BEHIND_GATES}{key}": tensor for key, tensor in old.items()}
    elif base.network_name == "pruned" != name:
        old = {key.removeprefix(BEHIND_GATES): value for key, value in old.items() if key.startswith(BEHIND_GATES)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(name, arguments)
    new = network.state_dict()
    outputs = class_dependent(name, arguments)
    gates = gate_parameters(network)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in new.items():
        if name in outputs:
            new[name] = _rows(old[name], tensor.shape[0], {0: 0, **channels}, generator)
        elif name in old and old[name].shape == tensor.shape:
            new[name] = old[name]
        elif name not in gates:
            raise ConfigError(
                f"{base.name} {base.version} has no fitting {name} for the new network.",
                "Its weights would not mean the same.",
                "Choose another base, or train from scratch.",
            )
    return new


def _rows(old: Tensor, count: int, channels: Mapping[int, int], generator: torch.Generator) -> Tensor:
    """Rows of `old` at their new places; new rows are the background's, see `NEW_LOGIT`."""
    new = old[:1].expand(count, *old.shape[1:]).clone()
    if old.ndim == 1:
        new[1:] += NEW_LOGIT
    else:
        scale = NEW_NOISE * old[:1].abs().mean()
        new[1:] += scale * torch.randn(new[1:].shape, generator=generator)
    for before, after in channels.items():
        new[after] = old[before]
    return new


def class_dependent(name: str, arguments: Mapping[str, Any]) -> set[str]:
    """Names of the tensors whose first axis is the outputs: those that change with their number."""
    more = build_network(name, {**arguments, "out_channels": int(arguments["out_channels"]) + 1}).state_dict()
    present = build_network(name, arguments).state_dict()
    return {key for key, tensor in present.items() if more[key].shape != tensor.shape}


def gate_parameters(network: nn.Module) -> set[str]:
    """Names of the tensors of its gates, and of the head in front of those of `prune_attention`."""
    return {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, QueryGate | DependencyGate | PruneHead)
        for name in module.state_dict()
    }
