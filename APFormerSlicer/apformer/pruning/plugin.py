"""Adaptive pruning for other people's networks: UNETR, ViT, anything around torch's TransformerEncoder.

    pruned = prune_attention(UNETR(...), sample=torch.zeros(1, 1, 64, 64, 64))
    pruned.gating = "soft"            # train: gates learn
    logits, auxiliaries = pruned(image, auxiliaries=True)
    pruned.gating = "hard"            # run: what the gates prune is not computed
    network = pruned.restore()        # the network as it was

The network's code stays untouched. While it is pruned, each transformer block has a `forward` of its own, which asks
the run in progress what to do; without one the block does what it always did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruningError
from .adapters import BlockView
from .attention import LayerCost, masked_layer, ragged_layer
from .auxiliaries import Auxiliaries, Gated
from .budget import dense_macs
from .gates import DependencyGate, QueryGate
from .stack import Stack, find_stack

HEAD_WIDTH = 64  # of the prune head's hidden layer: a thousandth of the operations of UNETR's blocks


def prune_attention(
    network: nn.Module,
    *,
    sample: Tensor,
    prune_keys: bool = True,
    safety_ring: int = 1,
    grid: Sequence[int] | None = None,
    stack: str | None = None,
) -> PrunedNetwork:
    """Give a network's transformer blocks gates that learn which tokens and keys they can do without.

    Args:
        network: maps images (B, C, *size), 2D or 3D, to anything. Its transformer blocks are MONAI's TransformerBlock
            or torch.nn.TransformerEncoderLayer. It is used itself, not a copy; `restore()` gives it back.
        sample: an image batch on the network's device; the network runs on it once, without gradients.
        prune_keys: drop keys that no kept query depends on.
        safety_ring: tokens kept around those the query gate keeps.
        grid: token grid of the sample, where it cannot be derived from the feature maps before the first block.
        stack: name of the module that holds the blocks, where there are several, such as "vit.blocks".

    Raises:
        PruningError: there are no such blocks, or one computes something that pruning would change.
    """
    return PrunedNetwork(network, find_stack(network, sample, grid, stack), prune_keys, safety_ring)


class PrunedNetwork(Gated, nn.Module):
    """A network with a prune head and gates in front of its transformer blocks; made by `prune_attention`.

    `forward(image)` gives the network's own output; with `auxiliaries=True` (output, Auxiliaries), as APFormer does. A
    token of the auxiliaries is one of the grid: a cls token is kept, stays a key, and appears in queries, keys and
    costs only.

    Attributes:
        network: the network.
        prune_head: predicts from the first block's input which cells hold foreground.
        query_gate: decides from it which tokens are kept.
        dependency: a DependencyGate per block, none without `prune_keys`.
        costs: of the blocks, in order.
        gating: "hard" (the default) skips what the gates prune; "soft" computes everything, so that gradients reach
            the gates; "off" runs the blocks as they are.
    """

    def __init__(self, network: nn.Module, stack: Stack, prune_keys: bool, safety_ring: int) -> None:
        super().__init__()
        self.network = network
        self.grid = stack.grid
        self.costs: list[LayerCost] = [view.cost for view in stack.views]
        self.prune_head = PruneHead(stack.grid.width, len(stack.grid.stride))
        self.query_gate = QueryGate(safety_ring)
        self.dependency = nn.ModuleList(DependencyGate(view.head_dim) for view in stack.views if prune_keys)
        parameter = next(stack.views[0].block.parameters())
        for part in (self.prune_head, self.query_gate, self.dependency):
            part.to(device=parameter.device, dtype=parameter.dtype)
        self._session = _Session()
        self._views = stack.views
        for number, view in enumerate(stack.views):
            view.block.forward = _GatedForward(self._session, view, number)

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Any:
        """See the class."""
        if not self._views:
            raise PruningError(
                "The network was restored.",
                "Its transformer blocks have no gates any more.",
                "Call the network itself, or prune_attention again.",
            )
        if self.gating == "off" and not auxiliaries:
            return self.network(image)
        run = _RUNS[self.gating](self, image)
        self._session.run = run
        try:
            output = self.network(image)
        finally:
            self._session.run = None
        return (output, run.auxiliaries()) if auxiliaries else output

    @property
    def token_stride(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return self.grid.stride

    def plan(self) -> dict[str, Any]:
        """Where the gates are, as plain data, from which `networks.pruned` makes the same modules."""
        return {
            "blocks": [view.name for view in self._views],
            "tokens": [self.grid.leading, list(self.grid.stride), self.grid.width],
            "prune_keys": len(self.dependency) > 0,
            "safety_ring": self.query_gate.ring,
        }

    def restore(self) -> nn.Module:
        """Take the gates out. The network is the very object that was given, with its own blocks; weights stay."""
        for view in self._views:
            del view.block.forward
        self._views = []
        return self.network


class PruneHead(nn.Module):
    """Predicts from tokens on their grid which cells hold foreground.

    The published head is one linear layer on what a CNN has made of the image. A ViT's first tokens are bare patches,
    of which a linear layer knows little more than their brightness, so this one has a hidden layer and looks at the
    neighbours. To keep 98 % of the cells that hold liver, a linear head on UNETR's tokens had to keep 51 % of all
    cells, one with a hidden layer 32 %, this one 24 % (validation slices of liver-ct, 160 x 160).

    Args:
        width: of a token.
        dims: axes of the grid, 2 or 3.
    """

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HEAD_WIDTH), nn.GELU())
        self.around = (nn.Conv2d if dims == 2 else nn.Conv3d)(HEAD_WIDTH, 2, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Tokens (B, cells, width), row-major on `grid` -> logits (B, 2, *grid)."""
        hidden: Tensor = self.hidden(tokens).transpose(1, 2).unflatten(2, tuple(grid))
        logits: Tensor = self.around(hidden)
        return logits


class _Session:
    """What the blocks look at: the forward pass in progress, if the network runs under gates."""

    def __init__(self) -> None:
        self.run: _Run | None = None


class _GatedForward:
    """Stands in for a block's forward. Copies and pickles with the network, unlike a function."""

    def __init__(self, session: _Session, view: BlockView, number: int) -> None:
        self.session, self.view, self.number = session, view, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = self.session.run
        if run is None:
            return self.view.original(args, kwargs)
        updated = run.block(self.number, self.view, self.view.enter(args, kwargs))
        return self.view.original(args, kwargs) if updated is None else self.view.leave(updated)


class _Run(ABC):
    """One forward pass under gates."""

    kept: Tensor  # (B, *grid)
    macs: Tensor  # (B,), so far

    def __init__(self, owner: PrunedNetwork, image: Tensor) -> None:
        self.owner, self.size = owner, tuple(image.shape[2:])
        self.leading = owner.grid.leading
        self.gates: list[Any] = list(owner.dependency) or [None] * len(owner.costs)
        self.prune_logits: Tensor | None = None  # (B, 2, *grid), from the first block on
        self.queries_keys: list[tuple[Tensor, Tensor]] = []

    def block(self, number: int, view: BlockView, tokens: Tensor) -> Tensor | None:
        """Tokens (B, N, width) through a block; None if the block is to run by itself."""
        if self.prune_logits is None:
            grid = self.owner.grid.on(self.size, tokens.shape[1])
            self.prune_logits = self.owner.prune_head(tokens[:, self.leading :], grid)
            self.begin(self.prune_logits, tokens)
        return self.layer(view, tokens, self.gates[number])

    def auxiliaries(self) -> Auxiliaries:
        """What the losses need, once the network is through."""
        if self.prune_logits is None:
            raise PruningError(
                "The network ran none of its pruned transformer blocks on this image.",
                "There is nothing to learn pruning from.",
                "Use images that pass through them, as the sample did.",
            )
        kept, stride = self.kept, self.owner.grid.stride
        return Auxiliaries(self.prune_logits, self.queries_keys, stride, kept, self.macs)

    @abstractmethod
    def begin(self, prune_logits: Tensor, tokens: Tensor) -> None:
        """Before the first block: which tokens are kept."""

    @abstractmethod
    def layer(self, view: BlockView, tokens: Tensor, gate: DependencyGate | None) -> Tensor | None:
        """See `block`."""

    def with_leading(self, cells: Tensor) -> Tensor:
        """(B, cells) -> (B, N): leading tokens are always kept and always serve as keys."""
        return torch.cat([cells.new_ones(cells.shape[0], self.leading), cells], dim=1)


class _OffRun(_Run):
    """Blocks run by themselves; the prune head, the queries and the keys can be trained."""

    def begin(self, prune_logits: Tensor, tokens: Tensor) -> None:
        self.kept = torch.ones_like(prune_logits[:, 0]).detach()
        macs = dense_macs(self.owner.costs, tokens.shape[1])
        self.macs = torch.full_like(tokens[:, 0, 0], macs, dtype=torch.float32)

    def layer(self, view: BlockView, tokens: Tensor, gate: DependencyGate | None) -> None:
        self.queries_keys.append((view.queries(tokens).transpose(1, 2), view.keys_values(tokens)[0].transpose(1, 2)))


class _SoftRun(_Run):
    """Blocks compute everything and multiply by what the gates say."""

    def begin(self, prune_logits: Tensor, tokens: Tensor) -> None:
        self.kept = self.owner.query_gate(prune_logits)
        self.rows = self.with_leading(self.kept.flatten(1))  # (B, N)
        self.used = self.rows.detach().amax(1, keepdim=True) > 0  # keys of an image with no kept query cost nothing
        self.alive = torch.ones_like(self.rows)
        self.macs = self.rows.new_zeros(self.rows.shape[0])

    def layer(self, view: BlockView, tokens: Tensor, gate: DependencyGate | None) -> Tensor:
        self.macs = self.macs + view.cost.macs(self.rows.sum(1), (self.alive * self.used).sum(1))
        step = masked_layer(view, tokens, self.rows, self.alive, None, gate, view.dropout)
        self.alive = self.with_leading(step.alive[:, self.leading :])
        self.queries_keys.append((step.queries, step.keys))
        return step.tokens


class _HardRun(_Run):
    """Blocks compute what is left."""

    def begin(self, prune_logits: Tensor, tokens: Tensor) -> None:
        self.kept = self.owner.query_gate(prune_logits).detach()
        self.rows = [row.nonzero().flatten() for row in self.with_leading(self.kept.flatten(1))]
        everything = torch.arange(tokens.shape[1], device=tokens.device)
        self.leaders = everything[: self.leading]
        self.alive = [everything] * len(self.rows)
        self.whole = all(rows.numel() == everything.numel() for rows in self.rows)
        self.macs = torch.zeros_like(tokens[:, 0, 0], dtype=torch.float32)

    def layer(self, view: BlockView, tokens: Tensor, gate: DependencyGate | None) -> Tensor | None:
        pairs = [(rows.numel(), keys.numel()) for rows, keys in zip(self.rows, self.alive, strict=True)]
        self.macs = self.macs + self.macs.new_tensor([view.cost.macs(q, k if q else 0) for q, k in pairs])
        if gate is None and self.whole:
            return None  # nothing is pruned: spare the gathering
        updated, alive = ragged_layer(view, tokens, self.rows, self.alive, None, gate, view.dropout)
        if self.leading:
            alive = [torch.cat([self.leaders, keys[keys >= self.leading]]) for keys in alive]
        self.alive = alive
        return updated


_RUNS: dict[str, type[_Run]] = {"off": _OffRun, "soft": _SoftRun, "hard": _HardRun}
