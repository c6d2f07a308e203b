"""Transformer blocks of every kind that is known here, in one form that can be masked, and cut to what is left.

A mask has one number per attention dimension, per hidden channel of the feed-forward part (MLP), and per patch (token):

- Dimension j of queries, keys and values is multiplied by the mask's j-th number, the same in all heads ("uniform" in
  ViT-Slim), so that cut heads are still matrices of one size.
- Hidden channel c is multiplied by its number behind the activation.
- A patch with the number m is a key of weight m, softmax(score + log m), and its own update counts m times: m = 1 is
  the block as it was, m = 0 a block that never saw the patch. ViT-Slim multiplies the normed input by m, where a patch
  of 0 still is a key of every query; that cannot be left out without changing the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PruningError
from .adapters import BlockView, MonaiBlock, TorchEncoderLayer, view_class
from .attention import LayerCost
from .stack import Size, TokenGrid

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
PATCH_START = 3.0  # ViT-Slim: tanh(3) = 0.995
SMALLEST_PATCH = 1e-6  # while masks are learned: the logarithm of 0 has no slope
# How a network calls its blocks: with tokens (B, N, width), (N, B, width), or (tokens, grid) as APFormer does.
BATCH_FIRST, BATCH_SECOND, WITH_GRID = "batch first", "batch second", "with grid"


class Rates(NamedTuple):
    """Dropout of attention weights, behind the attention, behind the activation, behind the MLP."""

    attention: float
    attended: float
    hidden: float
    output: float


class Parts(NamedTuple):
    """A block taken apart. H heads of d dimensions, tokens of width w, h hidden channels.

    qkv: (3, H, d, w), its bias (3, H, d); out: (w, H, d), its bias (w,); enter: (h, w); leave: (w, h).
    scale: of the scores. position: gives a bias of the scores for a grid, (1, H, N, N).
    """

    norm_attention: nn.Module
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    norm_ffn: nn.Module
    enter: Tensor
    enter_bias: Tensor | None
    leave: Tensor
    leave_bias: Tensor | None
    activation: str
    norm_first: bool
    scale: float
    rates: Rates
    layout: str
    position: nn.Module | None = None

    def cut(self, dims: Tensor, hidden: Tensor, dim_weights: Tensor, hidden_weights: Tensor) -> Parts:
        """Only these dimensions and channels, multiplied by their weights (one each)."""
        rows = dim_weights[:, None]
        bias = self.qkv_bias
        return self._replace(
            qkv=self.qkv.index_select(2, dims) * rows,
            qkv_bias=None if bias is None else bias.index_select(2, dims) * dim_weights,
            out=self.out.index_select(2, dims),
            enter=self.enter.index_select(0, hidden),
            enter_bias=None if self.enter_bias is None else self.enter_bias.index_select(0, hidden),
            leave=self.leave.index_select(1, hidden) * hidden_weights,
        )


def take_apart(name: str, block: nn.Module) -> Parts:
    """The parts of a block of APFormer, of MONAI (TransformerBlock), or torch's TransformerEncoderLayer.

    Raises:
        PruningError: it is none of them, or computes something that its parts would not repeat.
    """
    # Imported late: networks import this room too.
    from ..networks.transformer import TransformerLayer

    if isinstance(block, TransformerLayer):
        return _apformer_parts(name, block)
    kind = view_class(block)
    if kind is None:
        raise PruningError(
            f"{name!r} ({type(block).__name__}) is no transformer block of a known kind.",
            "Its dimensions cannot be searched.",
            "Known are APFormer's, MONAI's TransformerBlock and torch.nn.TransformerEncoderLayer.",
        )
    view = kind(name, block)
    return _monai_parts(view) if isinstance(view, MonaiBlock) else _torch_parts(view)


def _apformer_parts(name: str, layer: Any) -> Parts:
    attention, ffn = layer.attention, layer.ffn
    heads, key_dim, value_dim, _ = attention.shape
    if attention.dependency is not None or key_dim != value_dim:
        raise PruningError(
            f"The layer {name!r} of the APFormer has a dependency gate, or was cut already.",
            "A search looks at whole layers without gates.",
            "Search a dense APFormer: without prune_queries, prune_keys and layer_shapes.",
        )
    return Parts(
        layer.norm_attention,
        attention.to_qkv.weight.unflatten(0, (3, heads, key_dim)),
        None,
        attention.to_out.weight.unflatten(1, (heads, key_dim)),
        attention.to_out.bias,
        layer.norm_ffn,
        ffn[0].weight,
        ffn[0].bias,
        ffn[3].weight,
        ffn[3].bias,
        "relu",
        True,
        attention.scale,
        Rates(0.0, layer.dropout.p, ffn[2].p, ffn[4].p),
        WITH_GRID,
        attention.position,
    )


def _monai_parts(view: MonaiBlock) -> Parts:
    attention, ffn = view.block.attn, view.block.mlp
    kinds = {nn.ReLU: "relu", nn.GELU: "gelu"}
    if type(ffn.fn) not in kinds or getattr(ffn.fn, "approximate", "none") != "none":
        view.refuse(f"has the activation {ffn.fn}", "Build the network with ReLU or GELU.")
    linears = [attention.qkv] if view.combined else [attention.to_q, attention.to_k, attention.to_v]
    heads = view.inner // view.head_dim
    weight = torch.cat([linear.weight for linear in linears])
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
    out = attention.out_proj
    if not isinstance(out, nn.Linear):
        view.refuse("has no output projection (include_fc)", "Build the network with one.")
    return Parts(
        view.block.norm1,
        weight.unflatten(0, (3, heads, view.head_dim)),
        None if bias is None else bias.unflatten(0, (3, heads, view.head_dim)),
        out.weight.unflatten(1, (heads, view.head_dim)),
        out.bias,
        view.block.norm2,
        ffn.linear1.weight,
        ffn.linear1.bias,
        ffn.linear2.weight,
        ffn.linear2.bias,
        kinds[type(ffn.fn)],
        True,
        view.scale,
        Rates(
            *(float(getattr(drop, "p", 0.0)) for drop in (attention.drop_weights, attention.drop_output)),
            *(float(getattr(drop, "p", 0.0)) for drop in (ffn.drop1, ffn.drop2)),
        ),
        BATCH_FIRST,
    )


def _torch_parts(view: BlockView) -> Parts:
    assert isinstance(view, TorchEncoderLayer)
    block, attention = view.block, view.block.self_attn
    heads, bias = view.width // view.head_dim, attention.in_proj_bias
    return Parts(
        block.norm1,
        attention.in_proj_weight.unflatten(0, (3, heads, view.head_dim)),
        None if bias is None else bias.unflatten(0, (3, heads, view.head_dim)),
        attention.out_proj.weight.unflatten(1, (heads, view.head_dim)),
        attention.out_proj.bias,
        block.norm2,
        block.linear1.weight,
        block.linear1.bias,
        block.linear2.weight,
        block.linear2.bias,
        {1: "relu", 2: "gelu"}[block.activation_relu_or_gelu],
        bool(block.norm_first),
        view.scale,
        Rates(float(attention.dropout), block.dropout1.p, block.dropout.p, block.dropout2.p),
        BATCH_FIRST if view.batch_first else BATCH_SECOND,
    )


class Session:
    """What the blocks of one network know in common: where tokens are, and what the pass in progress has cost.

    Args:
        grid: of the tokens; None for a network whose patches are not looked at.
    """

    def __init__(self, grid: TokenGrid | None) -> None:
        self.grid = grid
        self.size: Size = ()
        self.macs = 0.0
        self.kept: Tensor | None = None  # (*grid), of the first block

    def begin(self, size: Sequence[int]) -> None:
        """A pass on images of this size."""
        self.size, self.macs, self.kept = tuple(size), 0.0, None


class SearchBlock(nn.Module):
    """A transformer block with masks, or what is left of one.

    Args:
        parts: of the block; its tensors are copied, its norms and its positions are used themselves.
        session: shared by the network's blocks.
        patches: (*base grid) bool, which patches the block works on; None for all.
        masks: whether there are masks to learn. They cover the patches when `patches` is given.

    Attributes:
        dim_mask (d,), hidden_mask (h,), patch_mask (*base grid): parameters, with masks; see `patch_weights`.
    """

    patches: Tensor | None
    position: Any  # Any, because the attributes of a torch module are typed as "tensor or module"

    def __init__(self, parts: Parts, session: Session, patches: Tensor | None = None, masks: bool = False) -> None:
        super().__init__()
        _, self.heads, self.dims, self.width = parts.qkv.shape
        self.hidden = parts.enter.shape[0]
        self.session, self.scale, self.rates, self.layout = session, parts.scale, parts.rates, parts.layout
        self.activation, self.norm_first = parts.activation, parts.norm_first
        self.norm_attention, self.norm_ffn, self.position = parts.norm_attention, parts.norm_ffn, parts.position
        bias = None if parts.qkv_bias is None else parts.qkv_bias.flatten()
        self.to_qkv = _linear(parts.qkv.flatten(0, 2), bias)
        self.to_out = _linear(parts.out.flatten(1), parts.out_bias)
        self.enter = _linear(parts.enter, parts.enter_bias)
        self.leave = _linear(parts.leave, parts.leave_bias)
        device = parts.qkv.device
        self.dim_mask = nn.Parameter(torch.ones(self.dims, device=device)) if masks else None
        self.hidden_mask = nn.Parameter(torch.ones(self.hidden, device=device)) if masks else None
        start = None if patches is None or not masks else torch.full(patches.shape, PATCH_START, device=device)
        self.patch_mask = None if start is None else nn.Parameter(start)
        self.register_buffer("patches", None if patches is None else patches.to(device).clone())  # its own
        self.stays: tuple[Tensor, Tensor] | None = None  # numbers of dimensions and channels, once that is decided
        self.seen = 0  # tokens of the last pass that it may work on

    @property
    def cost(self) -> LayerCost:
        """Multiply-accumulates, without what patches save."""
        inner = self.heads * self.dims
        ffn = 2 * self.width * self.hidden
        return LayerCost(2 * inner * self.width + ffn, 2 * inner * self.width, 2 * inner)

    @property
    def self_attn(self) -> SimpleNamespace:
        """torch.nn.TransformerEncoder asks its first layer for `self_attn.batch_first`."""
        return SimpleNamespace(batch_first=self.layout == BATCH_FIRST)

    def patch_weights(self) -> Tensor:
        """(*base grid): tanh of the mask, as in ViT-Slim, not below 0; once decided, 1 or 0."""
        assert self.patches is not None
        if self.patch_mask is None or self.stays is not None:
            return self.patches.float()
        return torch.tanh(self.patch_mask).clamp_min(SMALLEST_PATCH)

    def parts(self) -> Parts:
        """See `take_apart`."""
        bias = self.to_qkv.bias
        return Parts(
            self.norm_attention,
            self.to_qkv.weight.unflatten(0, (3, self.heads, self.dims)),
            None if bias is None else bias.unflatten(0, (3, self.heads, self.dims)),
            self.to_out.weight.unflatten(1, (self.heads, self.dims)),
            self.to_out.bias,
            self.norm_ffn,
            self.enter.weight,
            self.enter.bias,
            self.leave.weight,
            self.leave.bias,
            self.activation,
            self.norm_first,
            self.scale,
            self.rates,
            self.layout,
            self.position,
        )

    @torch.no_grad()
    def decide(self, dims: Tensor, hidden: Tensor, patches: Tensor | None) -> None:
        """Multiply what goes by 0 from now on: bool (d,), (h,), (*base grid), True stays. Masks learn no more."""
        assert self.dim_mask is not None and self.hidden_mask is not None
        for mask, kept in ((self.dim_mask, dims), (self.hidden_mask, hidden)):
            mask.mul_(kept.to(mask.device)).requires_grad_(False)
        if patches is not None and self.patch_mask is not None and self.patches is not None:
            self.patches.copy_(patches)
            self.patch_mask.requires_grad_(False)
        device = self.dim_mask.device
        self.stays = (dims.nonzero().flatten().to(device), hidden.nonzero().flatten().to(device))

    @torch.no_grad()
    def cut(self, session: Session) -> SearchBlock:
        """What is decided to stay, in a block of its own that shares norms and positions with this one."""
        assert self.stays is not None and self.dim_mask is not None and self.hidden_mask is not None
        dims, hidden = self.stays
        parts = self.parts().cut(dims, hidden, self.dim_mask[dims], self.hidden_mask[hidden])
        everything = self.patches is None or bool(self.patches.all())
        return SearchBlock(parts, session, None if everything else self.patches)

    def forward(self, tokens: Tensor, *others: Any, **named: Any) -> Any:
        """Called as the network calls its own block; only self-attention among all tokens is known."""
        if self.layout == WITH_GRID:
            return self._run(tokens, tuple(others[0]))
        if any(value is not None and value is not False for value in (*others, *named.values())):
            raise PruningError(
                "A searched transformer block is called with a mask or a context.",
                "Only self-attention among all tokens is known to it.",
                "Search a network that calls its blocks with tokens alone.",
            )
        if self.layout == BATCH_FIRST:
            return self._run(tokens, None)[0]
        return self._run(tokens.transpose(0, 1), None)[0].transpose(0, 1)

    def _run(self, tokens: Tensor, grid: Size | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, width) -> the same shape, with queries and keys (B, heads, n, dims) of the n tokens worked on."""
        weights = self._weights_on(tokens, grid)  # (N,)
        bias = None if self.position is None else self.position(grid, tokens.dtype)
        soft = weights is not None and self.patch_mask is not None
        self._count(tokens.shape[1], weights)
        if weights is None or soft:
            if weights is not None:
                visible = weights.log().to(tokens.dtype)[None]  # (1, N), of the keys
                bias = visible if bias is None else bias + visible
            updated, queries, keys = self._layer(tokens, bias)
            if weights is not None:
                updated = tokens + weights.to(tokens.dtype)[:, None] * (updated - tokens)
            return updated, queries, keys
        index = weights.nonzero().flatten()
        if bias is not None:
            bias = bias[..., index[:, None], index]
        updated, queries, keys = self._layer(tokens[:, index], bias)
        return tokens.index_copy(1, index, updated), queries, keys

    def _layer(self, rows: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        entered = self.norm_attention(rows) if self.norm_first else rows
        parts = self.to_qkv(entered).unflatten(-1, (3, self.heads, self.dims)).permute(2, 0, 3, 1, 4)
        if self.dim_mask is not None:
            parts = parts * self.dim_mask.to(parts.dtype)
        queries, keys, values = parts.unbind(0)  # (B, heads, n, dims)
        rate = self.rates.attention if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, dropout_p=rate, scale=self.scale
        )
        rows = rows + self._dropped(self.to_out(attended.transpose(1, 2).flatten(2)), self.rates.attended)
        if self.norm_first:
            return rows + self._ffn(self.norm_ffn(rows)), queries, keys
        rows = self.norm_attention(rows)
        return self.norm_ffn(rows + self._ffn(rows)), queries, keys

    def _ffn(self, rows: Tensor) -> Tensor:
        hidden = self._dropped(ACTIVATIONS[self.activation](self.enter(rows)), self.rates.hidden)
        if self.hidden_mask is not None:
            hidden = hidden * self.hidden_mask.to(hidden.dtype)
        return self._dropped(self.leave(hidden), self.rates.output)

    def _dropped(self, rows: Tensor, rate: float) -> Tensor:
        return F.dropout(rows, rate, self.training) if rate else rows

    def _weights_on(self, tokens: Tensor, grid: Size | None) -> Tensor | None:
        """Of all N tokens; those without a place (a cls token) count 1."""
        where = self.session.grid
        if self.patches is None or where is None:
            return None
        weights = self.patch_weights()
        target = grid or where.on(self.session.size, tokens.shape[1])
        if target != tuple(weights.shape):
            weights = F.interpolate(weights[None, None], size=target, mode="nearest-exact")[0, 0]
        if self.session.kept is None:
            self.session.kept = weights.detach()
        return torch.cat([weights.new_ones(where.leading), weights.flatten()])

    def _count(self, tokens: int, weights: Tensor | None) -> None:
        worked = tokens if weights is None else float(weights.detach().sum())
        self.seen = tokens if self.patch_mask is not None else round(worked)
        self.session.macs += float(self.cost.macs(worked, worked))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of its own with these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
