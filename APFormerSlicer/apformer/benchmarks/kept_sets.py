"""Kept sets of a stated size, so that what pruning saves can be measured apart from what a network learned to prune.

The kept tokens are a compact blob, as an organ and its safety ring are: the stated share of the token grid, those
nearest to a point off the middle. Where keys are cut, the same blob stays alive after the first layer. The gates do all
their work and their answer is replaced, so they cost what they cost. Only where keys are dropped, in the first layer,
the replacement is dearer than a real threshold: per key instead of per query, two more passes over its attention map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..networks.apformer import APFormer
from ..networks.transformer import TransformerLayer
from ..pruning.gates import DependencyGate, QueryGate

CENTRE = 0.45  # of each axis: off the middle, so that no symmetry of the grid helps


@dataclass(frozen=True)
class Variant:
    """One way to run the same network.

    Args:
        gating: of the network.
        keep: share of tokens that the query gate keeps.
        keys: the same share of keys stays alive after the first layer; otherwise there are no dependency gates.
        transformer: False removes the transformer layers; what is left is convolutions.
    """

    name: str
    gating: str = "hard"
    keep: float = 1.0
    keys: bool = False
    transformer: bool = True


MASKED = Variant("paper form, masked", gating="soft", keep=0.3, keys=True)
DENSE = Variant("dense SDPA", gating="off")
FLOOR = Variant("no transformer layers", gating="off", transformer=False)
VARIANTS = (
    MASKED,
    DENSE,
    Variant("ours, keep 1.0"),
    Variant("ours, keep 0.5", keep=0.5, keys=True),
    Variant("ours, keep 0.3", keep=0.3, keys=True),
    Variant("ours, keep 0.3, queries only", keep=0.3),
    Variant("ours, keep 0.1", keep=0.1, keys=True),
    FLOOR,
)


def blob(grid: Sequence[int], keep: float) -> Tensor:
    """round(keep * N) tokens, at least one, nearest to `CENTRE`: float32 (*grid) of 0 and 1."""
    axes = [torch.arange(length) - CENTRE * (length - 1) for length in grid]
    distance = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
    assert isinstance(distance, Tensor)
    count = max(1, round(keep * distance.numel()))
    kept = torch.zeros(distance.numel())
    kept[distance.flatten().argsort(stable=True)[:count]] = 1.0
    return kept.reshape(tuple(grid))


class PreparedQueryGate(QueryGate):
    """Decides, then keeps the prepared tokens (*grid) in every image."""

    kept: Tensor

    def __init__(self, gate: QueryGate, kept: Tensor) -> None:
        super().__init__(gate.ring)
        self.threshold = gate.threshold
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, prune_logits: Tensor) -> Tensor:
        """See `QueryGate`."""
        return self.kept.expand_as(super().forward(prune_logits))


class PreparedDependencyGate(DependencyGate):
    """Decides, then drops the keys for which `penalty` (keys,) is infinite; None drops none of those that are alive."""

    penalty: Tensor | None

    def __init__(self, gate: DependencyGate, penalty: Tensor | None) -> None:
        super().__init__(gate.weight.in_features)
        self.weight, self.gate = gate.weight, gate.gate
        self.register_buffer("penalty", penalty, persistent=False)

    def forward(self, queries: Tensor) -> Tensor:
        """0 keeps a key whatever its attention, infinity none: (..., 1), or (keys,) where keys are dropped."""
        decided = super().forward(queries)
        return torch.zeros_like(decided) if self.penalty is None else self.penalty


class _Gates(NamedTuple):
    query: PreparedQueryGate
    dependency: list[PreparedDependencyGate | None]  # of each layer


class Rig:
    """One network that runs as any variant: the gates are exchanged, the weights and positions stay.

    Args:
        network: an APFormer with both kinds of gates, on its device.
        image_size: of the images it will see.
    """

    def __init__(self, network: APFormer, image_size: Sequence[int]) -> None:
        self.network = network.eval()
        stride = network.config.token_stride
        self.grid = tuple(math.ceil(size / step) for size, step in zip(image_size, stride, strict=True))
        self._layers, self._query_gate = network.layers, network.query_gate
        self._typed_layers = [layer for layer in self._layers if isinstance(layer, TransformerLayer)]
        self._dependency = [layer.attention.dependency for layer in self._typed_layers]
        self._prepared: dict[Variant, _Gates] = {}

    def use(self, variant: Variant) -> APFormer:
        """The network as `variant`; it is the same object every time."""
        if variant not in self._prepared:
            self._prepared[variant] = self._prepare(variant)
        gates = self._prepared[variant]
        self.network.gating = variant.gating
        self.network.layers = self._layers if variant.transformer else nn.ModuleList()
        self.network.query_gate = gates.query
        for layer, gate in zip(self._typed_layers, gates.dependency, strict=True):
            layer.attention.dependency = gate
        return self.network

    def _prepare(self, variant: Variant) -> _Gates:
        assert self._query_gate is not None
        kept = blob(self.grid, variant.keep).to(self._query_gate.threshold.device)
        penalty = torch.where(kept.flatten() > 0, 0.0, torch.inf)
        dependency = [
            PreparedDependencyGate(gate, penalty if number == 0 else None)
            if variant.keys and gate is not None
            else None
            for number, gate in enumerate(self._dependency)
        ]
        return _Gates(PreparedQueryGate(self._query_gate, kept), dependency)
