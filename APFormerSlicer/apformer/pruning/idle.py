"""Dependency gates that save nothing, and a network without them."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..networks.apformer import APFormer
from ..networks.transformer import TransformerLayer


@torch.no_grad()
def without_idle_gates(network: APFormer, images: Sequence[Tensor], share: float) -> APFormer:
    """The network without the dependency gates that save next to nothing, tried from the first layer to the last.

    Such a gate lets nearly all keys live on, or is the last one, whose keys nobody reads any more. It cuts weak
    attention off all the same, and its comparisons take time: without it, a layer attends through a fused kernel. On
    one core, four gates that prune nothing take a fifth of the transformer's time.

    Args:
        network: in the gating it will run in.
        images: (1, C, *size), as many as it takes to see what real data need.
        share: a gate goes if the transformer's multiply-accumulates then rise by no more than this share.
    """

    def cost() -> float:
        return statistics.fmean(float(network(image, auxiliaries=True)[1].transformer_macs) for image in images)

    network = copy.deepcopy(network)
    attentions = [layer.attention for layer in network.layers if isinstance(layer, TransformerLayer)]
    spent = cost()
    for attention in attentions:
        gate, attention.dependency = attention.dependency, None
        without = cost()
        if without > (1 + share) * spent:
            attention.dependency = gate
        else:
            spent = without
    left = tuple(attention.dependency is not None for attention in attentions)
    network.config = replace(network.config, prune_keys=left)
    return network
