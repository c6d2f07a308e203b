"""Gates that learn which tokens and which keys attention can do without (Lin et al., IEEE TMI 2023, section III-D).

A gate decides hard, 0 or 1, in the forward pass, and passes the gradient of a sigmoid in the backward pass
(straight-through estimator). The released code writes its decisions by index assignment instead, so its thresholds
receive a gradient of exactly zero; see docs/pruning.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KEEP_ABOVE = 0.1  # published: a token is pruned when its background probability is 0.9 or more
GATE_START = -2.0  # released code
# Width of the sigmoids whose gradient passes through. Query gate, in logits: wide enough to hear of tokens the head is
# sure of. Dependency gate, in units of each query's attention range.
QUERY_SOFTNESS = 2.0
DEPENDENCY_SOFTNESS = 0.1
SMALLEST_RANGE = 1e-6


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of `hard` with the gradient of `soft`."""
    return hard.to(soft.dtype) + (soft - soft.detach())


def dilate(tokens: Tensor, ring: int) -> Tensor:
    """(B, *grid) -> the largest value within `ring` tokens along every axis: the safety ring around what is kept."""
    if ring == 0:
        return tokens
    pool = F.max_pool2d if tokens.ndim == 3 else F.max_pool3d
    return pool(tokens[:, None], kernel_size=2 * ring + 1, stride=1, padding=ring)[:, 0]


class QueryGate(nn.Module):
    """Keeps the tokens whose foreground probability exceeds a learnable threshold, and a ring of tokens around them.

    The probability is taken as given: the prune head learns it from labels alone, and a budget must not make the head
    believe that there is less foreground than there is. What the budget moves is the threshold.

    Args:
        ring: width of the safety ring, tokens.
    """

    def __init__(self, ring: int) -> None:
        super().__init__()
        self.ring = ring
        self.threshold = nn.Parameter(torch.tensor(math.log(KEEP_ABOVE / (1 - KEEP_ABOVE))))  # as a logit

    def forward(self, prune_logits: Tensor) -> Tensor:
        """Prune-head logits (B, 2, *grid) -> 1 for kept tokens, 0 for pruned ones, (B, *grid), straight-through."""
        logit = (prune_logits[:, 1] - prune_logits[:, 0]).detach().float()
        margin = logit - self.threshold
        hard = dilate((margin > 0).float(), self.ring)
        if not torch.is_grad_enabled():
            return hard
        return straight_through(hard, dilate(torch.sigmoid(margin / QUERY_SOFTNESS), self.ring))


class DependencyGate(nn.Module):
    """Per query and head, the attention weight below which a key does not count.

    t = min_j A_ij + sigmoid(w . q_i) * sigmoid(gate) * (max_j A_ij - min_j A_ij); the heads of a layer share w.
    The comparison is "at least t": the strongest key of a query always stays.

    Args:
        head_dim: width of a query.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(head_dim, 1, bias=False)
        self.gate = nn.Parameter(torch.tensor(GATE_START))

    def forward(self, queries: Tensor) -> Tensor:
        """Queries (..., head_dim) -> sigmoid(w . q) * sigmoid(gate), (..., 1): where t lies between min and max."""
        factor: Tensor = torch.sigmoid(self.weight(queries)) * torch.sigmoid(self.gate)
        return factor


def depends(attention: Tensor, lowest: Tensor, highest: Tensor, factor: Tensor) -> Tensor:
    """1 where a query depends on a key, else 0, straight-through towards `factor` and `attention`.

    Args:
        attention: (..., queries, keys), up to a positive factor per query.
        lowest, highest: least and greatest attention of each query, (..., queries, 1).
        factor: from `DependencyGate`, (..., queries, 1).
    """
    extent = highest - lowest
    threshold = lowest + factor * extent
    hard = attention >= threshold
    if not (torch.is_grad_enabled() and factor.requires_grad):
        return hard
    soft = torch.sigmoid((attention - threshold) / (DEPENDENCY_SOFTNESS * extent + SMALLEST_RANGE))
    return straight_through(hard, soft)
