"""Removing heads and channels that contribute nothing: the network gets smaller, its output stays.

What a part contributes is measured on real images as the energy (mean square) of what it adds to its layer's sum:

- hidden FFN channel c: E[a_c^2] |W2[:, c]|^2, a its activation;
- value channel c of head h: E[v_hc^2] |Wo[:, hc]|^2, v what the head read; a head: the sum over its channels;
- key channel c: sum over heads of E[q_hc^2] E[k_hc^2]. A layer's heads share their set of key channels, because they
  share the dependency weights that act on them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.apformer import APFormer
from ..networks.transformer import LayerShape, TransformerLayer


@dataclass(frozen=True)
class Living:
    """What stays of one layer, as numbers of the old network.

    heads: of the heads; keys: channels of queries and keys; values: per living head, its value channels (all heads
    keep equally many); ffn: hidden channels.
    """

    heads: tuple[int, ...]
    keys: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    ffn: tuple[int, ...]

    @property
    def shape(self) -> LayerShape:
        """Widths of the compact layer."""
        return LayerShape(len(self.heads), len(self.keys), len(self.values[0]), len(self.ffn))


class _Energies:
    """Running sums of squares of one layer's inner activations, over all rows it worked on."""

    def __init__(self, layer: TransformerLayer) -> None:
        self.layer = layer
        heads, key_dim, value_dim, ffn_dim = layer.attention.shape
        self.queries, self.keys = torch.zeros(heads, key_dim), torch.zeros(heads, key_dim)
        self.values, self.ffn = torch.zeros(heads, value_dim), torch.zeros(ffn_dim)

    def watch(self, hooks: ExitStack) -> None:
        """Attach to the layer until `hooks` closes."""
        attention, ffn = self.layer.attention, self.layer.ffn
        for handle in (
            self.layer.norm_attention.register_forward_hook(self._see_tokens),
            attention.to_out.register_forward_pre_hook(self._see_read),
            ffn[3].register_forward_pre_hook(self._see_hidden),
        ):
            hooks.callback(handle.remove)

    def _see_tokens(self, module: nn.Module, inputs: Any, rows: Tensor) -> None:
        keys, _ = self.layer.attention.keys_values(rows)
        self.queries += _sum_of_squares(self.layer.attention.queries(rows), 2)
        self.keys += _sum_of_squares(keys, 2)

    def _see_read(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.values += _sum_of_squares(inputs[0].unflatten(-1, self.values.shape), 2)

    def _see_hidden(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.ffn += _sum_of_squares(inputs[0], 1)

    def contributions(self) -> tuple[Tensor, Tensor, Tensor]:
        """(keys, values, ffn): (key_dim,), (heads, value_dim), (ffn_dim,)."""
        out = self.layer.attention.to_out.weight.detach().cpu().square().sum(0).reshape(self.values.shape)
        second = self.layer.ffn[3].weight.detach().cpu().square().sum(0)  # type: ignore[operator]
        return (self.queries * self.keys).sum(0), self.values * out, self.ffn * second


def _sum_of_squares(activations: Tensor, keep: int) -> Tensor:
    """Over all but the last `keep` axes."""
    return activations.detach().float().square().flatten(0, -keep - 1).sum(0).cpu()


@torch.no_grad()
def find_living(network: APFormer, batches: Iterable[Tensor], energy: float = 0.0) -> list[Living]:
    """Which parts of each transformer layer matter.

    Args:
        network: in the gating it will run in.
        batches: images (B, C, *size), as many as it takes to see what real data need.
        energy: share of each kind's energy per layer that may be removed; 0 removes only what never contributes.
    """
    layers = [layer for layer in network.layers if isinstance(layer, TransformerLayer)]
    energies = [_Energies(layer) for layer in layers]
    was_training = network.training
    network.eval()
    with ExitStack() as hooks:
        for entry in energies:
            entry.watch(hooks)
        for images in batches:
            network(images)
    network.train(was_training)
    return [_living(*entry.contributions(), energy) for entry in energies]


def _living(keys: Tensor, values: Tensor, ffn: Tensor, energy: float) -> Living:
    heads = _essential(values.sum(1), energy)
    per_head = max(len(_essential(values[head], energy)) for head in heads)
    strongest = [tuple(sorted(values[head].topk(per_head).indices.tolist())) for head in heads]
    return Living(heads, _essential(keys, energy), tuple(strongest), _essential(ffn, energy))


def _essential(contributions: Tensor, energy: float) -> tuple[int, ...]:
    """Numbers of all parts but the weakest ones, which together have at most `energy` of the sum; at least one."""
    ascending, order = contributions.double().sort()
    spare = int((ascending.cumsum(0) <= energy * ascending.sum()).sum())
    spare = min(spare, len(order) - 1)
    return tuple(sorted(order[spare:].tolist()))


def silence(network: APFormer, living: Sequence[Living]) -> APFormer:
    """A copy, of the same size, in which the parts that are not living are multiplied by zero."""
    network = copy.deepcopy(network)
    for layer, stays in zip(network.layers, living, strict=True):
        assert isinstance(layer, TransformerLayer)
        rows, columns = _attention_rows(layer, stays), _value_columns(layer, stays)
        _zero_others(layer.attention.to_qkv.weight, rows, 0)
        _zero_others(layer.attention.to_out.weight, columns, 1)
        _zero_others(layer.ffn[3].weight, torch.tensor(stays.ffn), 1)  # type: ignore[arg-type]
    return network


def _zero_others(weight: Tensor, kept: Tensor, axis: int) -> None:
    mask = torch.zeros(weight.shape[axis])
    mask[kept] = 1.0
    weight.data.mul_(mask[:, None] if axis == 0 else mask[None])


def compact(network: APFormer, living: Sequence[Living]) -> APFormer:
    """The small network: what is not living is gone. Its output is that of `silence(network, living)`."""
    arguments = asdict(network.config)
    arguments["layer_shapes"] = tuple(stays.shape for stays in living)
    small = type(network)(**arguments)
    state = network.state_dict()
    for number, (layer, stays) in enumerate(zip(network.layers, living, strict=True)):
        assert isinstance(layer, TransformerLayer)
        heads, keys, ffn = (torch.tensor(part) for part in (stays.heads, stays.keys, stays.ffn))
        columns = _value_columns(layer, stays)
        cuts = {
            "attention.to_qkv.weight": (0, _attention_rows(layer, stays)),
            "attention.to_out.weight": (1, columns),
            "attention.position.table": (1, heads),
            "attention.position.sigma": (0, heads),
            "attention.dependency.weight.weight": (1, keys),
            "ffn.0.weight": (0, ffn),
            "ffn.0.bias": (0, ffn),
            "ffn.3.weight": (1, ffn),
        }
        for name, (axis, kept) in cuts.items():
            key = f"layers.{number}.{name}"
            if key in state:
                state[key] = state[key].index_select(axis, kept.to(state[key].device))
    small.load_state_dict(state)
    small.gating = network.gating
    return small.train(network.training).to(next(network.parameters()).device)


def _attention_rows(layer: TransformerLayer, stays: Living) -> Tensor:
    """Rows of to_qkv that stay: queries, keys, values of the living heads and channels."""
    heads, key_dim, _, _ = layer.attention.shape
    keys = torch.cat([head * key_dim + torch.tensor(stays.keys) for head in stays.heads])
    return torch.cat([keys, heads * key_dim + keys, 2 * heads * key_dim + _value_columns(layer, stays)])


def _value_columns(layer: TransformerLayer, stays: Living) -> Tensor:
    """Columns of to_out that stay."""
    width = layer.attention.shape.value_dim
    return torch.cat([head * width + torch.tensor(c) for head, c in zip(stays.heads, stays.values, strict=True)])
