"""Transformer blocks of MONAI and of torch, seen as the `PrunableLayer`s that `masked_layer` and `ragged_layer` run.

A view holds no weights: it calls the block's own modules row by row. What it cannot repeat exactly it refuses.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PruningError
from .attention import LayerCost

MONAI_BLOCK = ("monai.networks.blocks.transformerblock", "TransformerBlock")
MONAI_ATTENTION = ("monai.networks.blocks.selfattention", "SABlock")
MONAI_FEED_FORWARD = ("monai.networks.blocks.mlp", "MLPBlock")
MONAI_PATCH_EMBEDDING = ("monai.networks.blocks.patchembedding", "PatchEmbeddingBlock")


class BlockView(ABC):
    """A block that is part of somebody else's network.

    Args:
        name: where the block is in the network, for messages.
        block: the block.

    Attributes:
        scale: factor of the attention scores.
        head_dim: width of a head's queries.
        cost: multiply-accumulates.

    Raises:
        PruningError: the block does something that pruned execution would not repeat.
    """

    arguments: tuple[str, ...]  # of the block's forward; the first one are the tokens
    batch_first = True
    scale: float
    head_dim: int
    cost: LayerCost

    def __init__(self, name: str, block: nn.Module) -> None:
        self.name = name
        # Any, because the attributes of a torch module are typed as "tensor or module".
        self.block: Any = block
        if "forward" in vars(block):
            self.refuse("has a replaced forward method", "Call restore() if it was pruned before.")

    @property
    @abstractmethod
    def dropout(self) -> float:
        """Dropout of the attention weights, 0 in evaluation mode."""

    @abstractmethod
    def queries(self, rows: Tensor) -> Tensor:
        """See `PrunableLayer`."""

    @abstractmethod
    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `PrunableLayer`."""

    @abstractmethod
    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """See `PrunableLayer`."""

    def enter(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """What the block was called with -> tokens (B, N, width).

        Raises:
            PruningError: a mask or a context was given, or the tokens are not such a batch.
        """
        given = dict(zip(self.arguments, args, strict=False)) | dict(kwargs)
        tokens = given.pop(self.arguments[0])
        for argument, value in given.items():
            if value is not None and value is not False:
                self.refuse(f"is called with {argument}", "Only self-attention among all tokens can be pruned.")
        if tokens.is_nested or tokens.ndim != 3:
            self.refuse("is not called with a (batch, tokens, width) tensor", "Give the network batches of images.")
        return tokens if self.batch_first else tokens.transpose(0, 1)

    def leave(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, width) -> the layout the block returns, contiguous as the block's own output is."""
        return (tokens if self.batch_first else tokens.transpose(0, 1)).contiguous()

    def original(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The block's own forward."""
        return type(self.block).forward(self.block, *args, **kwargs)

    def _split_heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (-1, self.head_dim))

    def _require_plain(self, module: nn.Module, kind: type[nn.Module]) -> None:
        """The module runs the forward of `kind`, not a subclass's or a replaced one."""
        if not isinstance(module, kind) or type(module).forward is not kind.forward or "forward" in vars(module):
            self.refuse(f"runs {type(module).__name__} instead of {kind.__name__}", "Use the library's own class.")

    def _require_unwatched(self, attention: nn.Module) -> None:
        """Nothing is hooked into the attention, whose parts are used without being called."""
        if any(part._forward_hooks or part._forward_pre_hooks for part in attention.modules()):
            self.refuse("has forward hooks in its attention", "Remove them; parametrisations may stay.")

    def _require(self, fine: bool, has: str) -> None:
        if not fine:
            self.refuse(f"has {has}", "Build the network without it.")

    def refuse(self, has: str, remedy: str) -> None:
        """Raise the PruningError that says what the block has or does."""
        raise PruningError(
            f"The block {self.name!r} ({type(self.block).__name__}) {has}.",
            "With pruned tokens it would not compute what it does without.",
            remedy,
        )


class MonaiBlock(BlockView):
    """monai.networks.blocks.TransformerBlock: pre-norm SABlock and MLPBlock, as in ViT and UNETR."""

    arguments = ("x", "context", "attn_mask")

    def __init__(self, name: str, block: nn.Module) -> None:
        super().__init__(name, block)
        attention, feed_forward = self.block.attn, self.block.mlp
        self._require_plain(block, _required(MONAI_BLOCK))
        self._require_plain(attention, _required(MONAI_ATTENTION))
        self._require_unwatched(attention)
        self._require_plain(feed_forward, _required(MONAI_FEED_FORWARD))
        self._require(not getattr(block, "with_cross_attention", False), "cross-attention")
        self._require(not attention.causal, "causal attention")
        self._require(attention.rel_positional_embedding is None, "relative positional embeddings")
        self._require(not attention.save_attn, "attention that is saved (save_attn)")
        self._require(attention.attention_dtype is None, "an attention_dtype of its own")
        # MONAI hands dropout_rate to the fused kernel in evaluation too, so such a block is random even then.
        random = attention.use_flash_attention and attention.dropout_rate > 0
        self._require(not random, "use_flash_attention together with dropout")
        self.combined = bool(attention.use_combined_linear)
        for projection in [attention.qkv] if self.combined else [attention.to_q, attention.to_k, attention.to_v]:
            self._require_plain(projection, nn.Linear)
        self.scale, self.head_dim = float(attention.scale), int(attention.dim_head)
        self.inner = int(attention.num_heads) * self.head_dim
        width, leaves = (
            int(attention.hidden_input_size),
            [attention.out_proj, feed_forward.linear1, feed_forward.linear2],
        )
        self.cost = LayerCost(self.inner * width + _linear_macs(leaves), 2 * self.inner * width, 2 * self.inner)

    @property
    def dropout(self) -> float:
        """See `BlockView`."""
        drop = self.block.attn.drop_weights
        return float(drop.p) if drop.training else 0.0

    def queries(self, rows: Tensor) -> Tensor:
        """See `PrunableLayer`."""
        attention, rows = self.block.attn, self.block.norm1(rows)
        if not self.combined:
            return self._split_heads(attention.to_q(rows))
        return self._split_heads(_part_of(attention.qkv.weight, attention.qkv.bias, rows, 0, self.inner))

    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `PrunableLayer`."""
        attention, rows = self.block.attn, self.block.norm1(rows)
        if not self.combined:
            return self._split_heads(attention.to_k(rows)), self._split_heads(attention.to_v(rows))
        both = _part_of(attention.qkv.weight, attention.qkv.bias, rows, self.inner, 3 * self.inner)
        keys, values = both.chunk(2, dim=-1)
        return self._split_heads(keys), self._split_heads(values)

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """See `PrunableLayer`."""
        attention = self.block.attn
        rows = rows + attention.drop_output(attention.out_proj(attended.flatten(-2)))
        finished: Tensor = rows + self.block.mlp(self.block.norm2(rows))
        return finished


class TorchEncoderLayer(BlockView):
    """torch.nn.TransformerEncoderLayer, pre- or post-norm."""

    arguments = ("src", "src_mask", "src_key_padding_mask", "is_causal")

    def __init__(self, name: str, block: nn.Module) -> None:
        super().__init__(name, block)
        attention = self.block.self_attn
        self._require_plain(block, nn.TransformerEncoderLayer)
        self._require_plain(attention, nn.MultiheadAttention)
        self._require_unwatched(attention)
        self._require(attention.bias_k is None and attention.bias_v is None, "learned extra keys (add_bias_kv)")
        self._require(not attention.add_zero_attn, "a zero key (add_zero_attn)")
        # Any other callable could mix tokens.
        self._require(self.block.activation_relu_or_gelu != 0, "an activation other than ReLU and GELU")
        self.batch_first = bool(attention.batch_first)
        self.head_dim, self.width = int(attention.head_dim), int(attention.embed_dim)
        self.scale = self.head_dim**-0.5
        leaves = [attention.out_proj, self.block.linear1, self.block.linear2]
        self.cost = LayerCost(self.width**2 + _linear_macs(leaves), 2 * self.width**2, 2 * self.width)

    @property
    def dropout(self) -> float:
        """See `BlockView`."""
        attention = self.block.self_attn
        return float(attention.dropout) if attention.training else 0.0

    def queries(self, rows: Tensor) -> Tensor:
        """See `PrunableLayer`."""
        return self._split_heads(self._projected(rows, 0, self.width))

    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `PrunableLayer`."""
        keys, values = self._projected(rows, self.width, 3 * self.width).chunk(2, dim=-1)
        return self._split_heads(keys), self._split_heads(values)

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """See `PrunableLayer`."""
        block = self.block
        rows = rows + block.dropout1(block.self_attn.out_proj(attended.flatten(-2)))
        if block.norm_first:
            return rows + self._feed_forward(block.norm2(rows))
        rows = block.norm1(rows)
        normed: Tensor = block.norm2(rows + self._feed_forward(rows))
        return normed

    def _projected(self, rows: Tensor, first: int, last: int) -> Tensor:
        attention = self.block.self_attn
        rows = self.block.norm1(rows) if self.block.norm_first else rows
        return _part_of(attention.in_proj_weight, attention.in_proj_bias, rows, first, last)

    def _feed_forward(self, rows: Tensor) -> Tensor:
        block = self.block
        widened: Tensor = block.dropout2(block.linear2(block.dropout(block.activation(block.linear1(rows)))))
        return widened


def view_class(module: nn.Module) -> type[BlockView] | None:
    """How to see a known transformer block, None for any other module."""
    monai_block = _loaded(MONAI_BLOCK)
    if monai_block is not None and isinstance(module, monai_block):
        return MonaiBlock
    return TorchEncoderLayer if isinstance(module, nn.TransformerEncoderLayer) else None


def perceptron_patch(network: nn.Module) -> tuple[int, ...] | None:
    """Patch size of MONAI's PatchEmbeddingBlock with proj_type "perceptron", which leaves no feature map to look at."""
    embedding = _loaded(MONAI_PATCH_EMBEDDING)
    for module in network.modules() if embedding is not None else ():
        if isinstance(module, embedding) and module.proj_type == "perceptron":  # type: ignore[arg-type]
            lengths = module.patch_embeddings[0].axes_lengths  # type: ignore[index, union-attr]
            return tuple(int(lengths[name]) for name in sorted(lengths))  # p1, p2, p3
    return None


def _loaded(place: tuple[str, str]) -> type[nn.Module] | None:
    """A class of MONAI if MONAI has been imported: else no network can contain it, and this room stays light."""
    module, name = place
    found: type[nn.Module] | None = getattr(sys.modules.get(module), name, None)
    return found


def _required(place: tuple[str, str]) -> type[nn.Module]:
    found = _loaded(place)
    assert found is not None, place  # whoever has a TransformerBlock has imported its parts
    return found


def _part_of(weight: Tensor, bias: Tensor | None, rows: Tensor, first: int, last: int) -> Tensor:
    """Some of the outputs of a linear layer."""
    return F.linear(rows, weight[first:last], None if bias is None else bias[first:last])


def _linear_macs(layers: Sequence[nn.Module]) -> int:
    """Multiply-accumulates per row; anything but a linear layer costs none."""
    return sum(layer.in_features * layer.out_features for layer in layers if isinstance(layer, nn.Linear))
