"""A network around blocks that were searched, or are being searched."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .auxiliaries import Auxiliaries
from .search_block import SearchBlock, Session
from .search_pixels import PixelClassifier


class SearchedNetwork(nn.Module):
    """A network whose transformer blocks are `SearchBlock`s, and a pixel classification module behind it.

    `forward(image)` gives the network's own output, judged once more pixel by pixel; with `auxiliaries=True`
    (output, Auxiliaries), as all networks here do.

    Args:
        network: its blocks are replaced.
        blocks: name in the network -> what replaces it, in the order in which they run.
        session: of the blocks.
        pixels: the pixel classification module; None for none.
    """

    def __init__(
        self, network: nn.Module, blocks: Mapping[str, SearchBlock], session: Session, pixels: PixelClassifier | None
    ) -> None:
        super().__init__()
        for name, block in blocks.items():
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, block)
        self.network, self.pixels, self.session = network, pixels, session
        self.names = tuple(blocks)
        self._asks = "auxiliaries" in inspect.signature(network.forward).parameters

    def plan(self) -> dict[str, Any]:
        """What there is, as plain data, from which `networks.slimmed` makes the same modules."""
        patched = [name for name, block in zip(self.names, self.blocks, strict=True) if block.patches is not None]
        where = self.session.grid
        return {
            "blocks": {name: [block.dims, block.hidden] for name, block in zip(self.names, self.blocks, strict=True)},
            "patched": patched,
            "grid": [list(block.patches.shape) for block in self.blocks if block.patches is not None][:1],
            "tokens": [] if where is None else [where.leading, list(where.stride), where.width],
            "pixels": 0 if self.pixels is None else self.pixels.look.out_channels,
        }

    @property
    def blocks(self) -> list[SearchBlock]:
        """In the order in which they run."""
        found = [self.network.get_submodule(name) for name in self.names]
        return [block for block in found if isinstance(block, SearchBlock)]

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Any:
        """See the class."""
        self.session.begin(image.shape[2:])
        known: Auxiliaries | None = None
        if auxiliaries and self._asks:
            output, known = self.network(image, auxiliaries=True)
        else:
            output = self.network(image)
        if self.pixels is not None:
            output = self.pixels(image, output)
        return (output, self._auxiliaries(image, known)) if auxiliaries else output

    def _auxiliaries(self, image: Tensor, known: Auxiliaries | None) -> Auxiliaries:
        """The network's own, with what its blocks did."""
        spent = torch.full((len(image),), self.session.macs, device=image.device)
        kept, stride = self.session.kept, tuple(image.shape[2:])
        if known is not None:
            kept = known.kept if kept is None else kept.float().expand_as(known.kept)
            return known._replace(kept=kept, transformer_macs=spent)
        if kept is not None and self.session.grid is not None:
            return Auxiliaries(None, [], self.session.grid.stride, kept.float().expand(len(image), *kept.shape), spent)
        return Auxiliaries(None, [], stride, image.new_ones(len(image), *[1] * len(stride)), spent)
