"""What one forward pass costs: multiply-accumulate operations (MAC), counted while it runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_BATCHED_PRODUCTS = {torch.ops.aten.bmm: 0, torch.ops.aten.baddbmm: 1}  # operator -> place of the first factor


class Macs(NamedTuple):
    """Multiply-accumulate operations of one forward pass.

    total: all convolutions, linear layers and matrix products.
    attention: the share of products between activations, which is q.k and A.v in a transformer. Many published
        numbers leave it out, because common counters only look at layers.
    """

    total: int
    attention: int

    @property
    def without_attention(self) -> int:
        """As many publications count: layers only."""
        return self.total - self.attention


class _ActivationProducts(TorchDispatchMode):
    """Counts the batched matrix products in which no factor is a parameter."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.macs = 0
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        first = _BATCHED_PRODUCTS.get(func.overloadpacket)
        if first is not None:
            left, right = args[first : first + 2]  # (batch, n, m) and (batch, m, p)
            if not (self._is_weight(left) or self._is_weight(right)):
                self.macs += left.shape[0] * left.shape[1] * left.shape[2] * right.shape[2]
        return func(*args, **(kwargs or {}))

    def _is_weight(self, factor: Tensor) -> bool:
        return factor.untyped_storage().data_ptr() in self._weights


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> Macs:
    """Count one forward pass in evaluation mode on zeros of `input_shape`, (B, C, *size), 2D or 3D.

    A copy of the network runs, on its own device, so mode, caches and running statistics stay as they are. Attention
    is computed by plain matrix products, because the fused kernels hide theirs from a counter.
    """
    network = copy.deepcopy(network).eval()
    parameter = next(network.parameters())
    image = torch.zeros(tuple(input_shape), dtype=parameter.dtype, device=parameter.device)
    products = _ActivationProducts(network)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch's fused encoder layer hides its products altogether
    # FlopCounterMode takes composite operators apart and hands the parts on to the mode around it.
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), products, FlopCounterMode(display=False) as counter:
            network(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return Macs(counter.get_total_flops() // 2, products.macs)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
