"""One transformer layer under pruning, in two forms that give the same numbers.

`masked_layer` computes everything and multiplies by 0 or 1: gradients reach the gates, nothing is saved. It is for
training. `ragged_layer` gathers what is left and computes only that. Their maths:

- A pruned token passes the whole layer unchanged: no attention, no feed-forward part.
- A kept token i attends over the keys j that are still alive. With e_ij = exp(score_ij - max_j score_ij), the
  dependency gate keeps the keys with e_ij >= t_i (see `gates`), and the result is
  sum_j D_ij e_ij v_j / (sum_j D_ij e_ij + 1e-6 sum_j e_ij).
- A key that no kept query depends on, in no head, is dead for all later layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .gates import DependencyGate, depends

RENORMALISATION_EPS = 1e-6  # released code
# Dead keys enter the masked form multiplied by 0; their exponent is bounded so that 0 * exp(...) is never 0 * inf.
LARGEST_EXPONENT = 20.0
LARGEST_WRITTEN_OUT = 1 << 27  # products of queries and keys, per image and head; see `_learns_faster_written_out`


class PrunableLayer(Protocol):
    """What the two forms need of a layer. All methods work row by row: (..., width) in, (..., ...) out."""

    scale: float  # factor of the scores, usually head_dim ** -0.5

    def queries(self, rows: Tensor) -> Tensor:
        """(..., width) -> (..., heads, head_dim)."""
        ...

    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., width) -> keys (..., heads, head_dim) and values (..., heads, value_dim)."""
        ...

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """Rows (..., width) and what they attended to (..., heads, value_dim) -> the layer's output (..., width)."""
        ...


class LayerCost(NamedTuple):
    """Multiply-accumulates of a layer: per kept query, per living key, per pair of them."""

    per_query: int
    per_key: int
    per_pair: int

    def macs(self, queries: Tensor | float, keys: Tensor | float) -> Tensor | float:
        """Of one image with so many queries and keys; differentiable if these are tensors."""
        return queries * self.per_query + keys * self.per_key + queries * keys * self.per_pair


class GatedNetwork(Protocol):
    """What training and the budget need of a prunable network: APFormer, or another one after `prune_attention`."""

    gating: str  # "off", "soft" or "hard"

    @property
    def costs(self) -> Sequence[LayerCost]:
        """Of the transformer layers, in order."""
        ...


class Masked(NamedTuple):
    """tokens (B, N, width); alive (B, N): keys for the next layer; queries and keys (B, heads, N, head_dim)."""

    tokens: Tensor
    alive: Tensor
    queries: Tensor
    keys: Tensor


def masked_layer(
    layer: PrunableLayer,
    tokens: Tensor,
    kept: Tensor,
    alive: Tensor,
    bias: Tensor | None,
    gate: DependencyGate | None,
    dropout: float = 0.0,
) -> Masked:
    """The training form.

    Args:
        tokens: (B, N, width).
        kept: (B, N), 1 for tokens that are updated, straight-through.
        alive: (B, N), 1 for tokens that may serve as keys, straight-through.
        bias: (1, heads, N, N), added to the scores.
        gate: None keeps every dependency.
        dropout: of the attention weights.
    """
    queries = layer.queries(tokens).transpose(1, 2)  # (B, heads, N, head_dim)
    keys, values = (rows.transpose(1, 2) for rows in layer.keys_values(tokens))
    scores = (queries @ keys.transpose(-1, -2)).float() * layer.scale
    if bias is not None:
        scores = scores + bias
    visible = alive[:, None, None, :].float()
    hidden = visible.detach() == 0
    peak = scores.detach().masked_fill(hidden, -torch.inf).amax(-1, keepdim=True)
    peak = peak.masked_fill(peak == -torch.inf, 0.0)  # no key at all: no query is kept either
    weights = torch.exp((scores - peak).clamp(max=LARGEST_EXPONENT)) * visible
    total = weights.sum(-1, keepdim=True)
    if gate is not None:
        lowest = weights.detach().masked_fill(hidden, torch.inf).amin(-1, keepdim=True)
        lowest = lowest.masked_fill(lowest == torch.inf, 0.0)
        dependent = depends(weights, lowest, torch.ones_like(lowest), gate(queries).float()) * visible
        weights = weights * dependent
        alive = (dependent * kept[:, None, :, None]).amax((1, 2))
        normaliser = weights.sum(-1, keepdim=True) + RENORMALISATION_EPS * total
    else:
        normaliser = total
    tiny = torch.finfo(normaliser.dtype).tiny
    shares = F.dropout(weights / normaliser.clamp_min(tiny), dropout)
    attended = (shares.to(values.dtype) @ values).transpose(1, 2)
    updated = layer.finish(tokens, attended)
    return Masked(
        torch.where(kept[..., None] > 0, updated, tokens) + _gradient_only(kept, updated, tokens), alive, queries, keys
    )


def _gradient_only(kept: Tensor, updated: Tensor, tokens: Tensor) -> Tensor:
    """Zero, with the gradient that kept * (updated - tokens) has towards `kept`: what keeping a token changes."""
    if not kept.requires_grad:
        return torch.zeros((), dtype=tokens.dtype, device=tokens.device)
    return ((kept - kept.detach())[..., None] * (updated - tokens).detach()).to(tokens.dtype)


def ragged_layer(
    layer: PrunableLayer,
    tokens: Tensor,
    kept: Sequence[Tensor],
    alive: Sequence[Tensor],
    bias: Tensor | None,
    gate: DependencyGate | None,
    dropout: float = 0.0,
) -> tuple[Tensor, list[Tensor]]:
    """The run form: linear layers on the packed rows of the whole batch; attention of all images at once where each
    token is a key, else image by image.

    Args:
        tokens: (B, N, width).
        kept: per sample, int64 numbers of the kept tokens.
        alive: per sample, int64 numbers of the tokens that may serve as keys.
        bias: (1, heads, N, N).
        gate: None keeps every dependency; attention is then `scaled_dot_product_attention`.
        dropout: of the attention weights.

    Returns: tokens (B, N, width) and, per sample, the keys that live on.
    """
    count = tokens.shape[1]
    alive = [keys if queries.numel() else keys[:0] for queries, keys in zip(kept, alive, strict=True)]
    rows = tokens.reshape(-1, tokens.shape[-1])  # (B * N, width)
    query_rows = torch.cat([index + sample * count for sample, index in enumerate(kept)])
    if not query_rows.numel():
        return tokens, list(alive)
    kept_rows = rows.index_select(0, query_rows)
    if gate is None and all(keys.numel() in (0, count) for keys in alive):
        attended, survivors = _attend_together(layer, tokens, kept_rows, kept, bias, dropout), list(alive)
    else:
        attended, survivors = _attend_one_by_one(layer, rows, kept_rows, kept, alive, bias, gate, dropout)
    updated = layer.finish(kept_rows, attended).to(rows.dtype)
    return rows.index_copy(0, query_rows, updated).reshape(tokens.shape), survivors


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, dropout: float = 0.0
) -> Tensor:
    """Softmax attention: (B, heads, Q, d), (B, heads, K, d), (B, heads, K, value_dim) -> (B, heads, Q, value_dim).

    Args:
        bias: (B or 1, heads, Q, K), added to the scores, in the precision of the queries.
    """
    if bias is not None and (bias.requires_grad or _learns_faster_written_out(queries, keys, values)):
        # torch has no fused form with a gradient towards the bias; its plain one takes twice this.
        shares = torch.softmax((queries * scale) @ keys.transpose(-1, -2) + bias, -1)
        attended: Tensor = F.dropout(shares, dropout) @ values
        return attended
    # torch's fused kernels want one width; without it, 4 x 6 heads of 1024 x 1024 pairs take 190 ms and not 111, in
    # bfloat16 216 and not 41 (a Xeon with AMX, one core).
    wide = max(queries.shape[-1], values.shape[-1])
    queries, keys, padded = (F.pad(part, (0, wide - part.shape[-1])) for part in (queries, keys, values))
    found = F.scaled_dot_product_attention(queries, keys, padded, attn_mask=bias, dropout_p=dropout, scale=scale)
    return found[..., : values.shape[-1]]


def _learns_faster_written_out(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether torch's fused attention, forward and backward together, is slower. On a Xeon with AMX, one core, in
    bfloat16: 27 ms and 17 for 8 x 6 heads of 256 x 256 pairs, 32 wide; 31 and 25 for 2 x 4 of 864 x 864; 194 and 139
    for 4 x 6 of 1024 x 1024, 128 wide. In float32 it is the faster one, but not for values of another width: 355 and
    342 for keys of 56 and values of 120."""
    learns = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    slow = queries.dtype == torch.bfloat16 or queries.shape[-1] != values.shape[-1]
    wide = max(queries.shape[-1], values.shape[-1])
    few = queries.shape[-2] * keys.shape[-2] * wide <= LARGEST_WRITTEN_OUT
    return learns and slow and few and queries.device.type == "cpu"


def _attend_together(
    layer: PrunableLayer,
    tokens: Tensor,
    kept_rows: Tensor,
    kept: Sequence[Tensor],
    bias: Tensor | None,
    dropout: float,
) -> Tensor:
    """Where every token is a key: the whole batch in one call, the queries of each image padded to the longest's.

    Returns: (kept tokens of all images, heads, value_dim).
    """
    batch = tokens.shape[0]
    counts = torch.tensor([index.numel() for index in kept], device=tokens.device)
    longest = int(counts.max())
    filled = (torch.arange(longest, device=tokens.device) < counts[:, None]).flatten().nonzero().flatten()
    queries = layer.queries(kept_rows)  # (kept, heads, head_dim)
    padded = queries.new_zeros(batch * longest, *queries.shape[1:]).index_copy(0, filled, queries)
    keys, values = (rows.transpose(1, 2) for rows in layer.keys_values(tokens))  # (B, heads, N, head_dim)
    if bias is not None:
        places = filled.new_zeros(batch * longest).index_copy(0, filled, torch.cat(list(kept)))
        chosen = bias[0].to(queries.dtype).index_select(1, places)  # (heads, B * longest, N)
        bias = chosen.unflatten(1, (batch, longest)).transpose(0, 1)
    padded = padded.unflatten(0, (batch, longest)).transpose(1, 2)  # (B, heads, longest, head_dim)
    attended = attend(padded, keys, values, bias, layer.scale, dropout)
    return attended.transpose(1, 2).flatten(0, 1).index_select(0, filled)


def _attend_one_by_one(
    layer: PrunableLayer,
    rows: Tensor,
    kept_rows: Tensor,
    kept: Sequence[Tensor],
    alive: Sequence[Tensor],
    bias: Tensor | None,
    gate: DependencyGate | None,
    dropout: float,
) -> tuple[Tensor, list[Tensor]]:
    """Image by image, each with the keys that it has left.

    Returns: (kept tokens of all images, heads, value_dim), and the keys that live on.
    """
    count = rows.shape[0] // len(kept)
    key_rows = torch.cat([index + sample * count for sample, index in enumerate(alive)])
    queries = layer.queries(kept_rows).split([index.numel() for index in kept])
    keys, values = (
        packed.split([i.numel() for i in alive]) for packed in layer.keys_values(rows.index_select(0, key_rows))
    )
    attended, survivors = [], []
    for sample, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
        if not q.shape[0]:
            survivors.append(alive[sample])
            continue
        here = None if bias is None else _bias_between(bias[0], kept[sample], alive[sample])
        result, needed = _attend(q, k, v, here, layer.scale, gate, dropout)
        attended.append(result)
        survivors.append(alive[sample] if needed is None else alive[sample][needed])
    return torch.cat(attended), survivors


def _bias_between(bias: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """(heads, N, N) -> (heads, queries, keys)."""
    some = bias if queries.numel() == bias.shape[1] else bias.index_select(1, queries)
    return some if keys.numel() == bias.shape[2] else some.index_select(2, keys)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, gate: DependencyGate | None, dropout: float
) -> tuple[Tensor, Tensor | None]:
    """One sample: (Q, heads, d), (K, heads, d), (K, heads, value_dim) -> (Q, heads, value_dim), bool (K,) or None."""
    q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    if gate is None:
        mask = None if bias is None else bias[None].to(q.dtype)
        return attend(q[None], k[None], v[None], mask, scale, dropout)[0].transpose(0, 1), None
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if bias is not None:
        scores = scores + bias
    weights = torch.exp(scores - scores.detach().amax(-1, keepdim=True))  # (heads, Q, K), greatest 1
    total = weights.sum(-1, keepdim=True)
    lowest = weights.detach().amin(-1, keepdim=True)
    # Detached: gates learn in the masked form only; here what they decided is a fact.
    dependent = depends(weights, lowest, torch.ones_like(lowest), gate(q).float().detach())
    weights = weights * dependent
    normaliser = weights.sum(-1, keepdim=True) + RENORMALISATION_EPS * total
    needed = dependent.detach().amax((0, 1)) > 0
    return (F.dropout(weights, dropout).to(v.dtype) @ v / normaliser.to(v.dtype)).transpose(0, 1), needed
