"""What a prunable network returns besides its logits, and the ways its gates can be set."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# "hard" skips what the gates prune; "soft" computes everything, so that gradients reach the gates; "off" ignores them.
GATING = ("off", "soft", "hard")


class Gated:
    """The `gating` of a prunable network, one of `GATING`; "hard" unless set."""

    _gating = "hard"

    @property
    def gating(self) -> str:
        """How the gates are used."""
        return self._gating

    @gating.setter
    def gating(self, value: str) -> None:
        if value not in GATING:
            raise ValueError(f"gating must be one of {GATING}, not {value!r}")
        self._gating = value


class Coarser(NamedTuple):
    """Output of a coarser level: logits (B, classes, *size / step) of whole cells, which may reach beyond the image.

    step: voxels of the image per voxel of the logits along each axis.
    """

    logits: Tensor
    step: tuple[int, ...]


class Auxiliaries(NamedTuple):
    """What the training losses need besides the logits.

    prune_logits: (B, 2, *token grid), channel 0 background and 1 any foreground in the cell; None without the head.
    queries_keys: per layer, the queries and keys (B, heads, N, key_dim) from which SSA computes content attention;
        empty with hard gates, where not all of them are computed.
    token_stride: voxels per token along each axis.
    kept: (B, *token grid), 1 where the transformer worked, 0 where the token was pruned.
    transformer_macs: (B,) multiply-accumulates of the transformer layers, products of activations included; with soft
        gates differentiable towards the gates.
    coarser: in training, what the levels with outputs of their own give (deep supervision), finest first.
    """

    prune_logits: Tensor | None
    queries_keys: list[tuple[Tensor, Tensor]]
    token_stride: tuple[int, ...]
    kept: Tensor
    transformer_macs: Tensor
    coarser: tuple[Coarser, ...] = ()

    @classmethod
    def unpruned(cls, image: Tensor) -> Auxiliaries:
        """Of a network that prunes nothing and leaves its attention to itself, for a batch of images (B, C, *size)."""
        size = tuple(image.shape[2:])
        kept = image.new_ones(image.shape[0], *size)
        return cls(None, [], (1,) * len(size), kept, image.new_zeros(image.shape[0]))
