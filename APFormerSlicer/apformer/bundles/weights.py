"""Network weights as safetensors bytes: fp16 on disk, float32 in memory, checked against the network they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import APFormerError, BundleError
from .manifest import refused

if TYPE_CHECKING:
    import torch

_FP16_HIGHEST = 65504.0


def pack(state: Mapping[str, torch.Tensor]) -> bytes:
    """The state dict as safetensors bytes: floating-point tensors in fp16, others as they are.

    A tensor with values beyond the range of fp16 (a batch-norm variance may be) is kept in float32.

    Raises:
        BundleError: a value is NaN or infinite.
    """
    import safetensors.torch
    import torch

    packed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu()
        _check_finite(name, value)
        if value.is_floating_point():
            fits = value.numel() == 0 or float(value.abs().max()) <= _FP16_HIGHEST
            value = value.to(torch.float16 if fits else torch.float32)
        packed[name] = value.clone(memory_format=torch.contiguous_format)  # safetensors refuses shared memory
    return safetensors.torch.save(packed)


def unpack(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors in safetensors bytes, floating-point ones as float32.

    Raises:
        BundleError: truncated or otherwise not safetensors, a number type that networks here do not use, NaN or
            infinite values.
    """
    import safetensors.torch
    import torch

    try:
        stored = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise refused(f"The weights are not a complete safetensors file ({error}).") from error
    floating = (torch.float16, torch.bfloat16, torch.float32)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        if tensor.dtype not in (*floating, torch.int64, torch.int32, torch.uint8, torch.bool):
            raise refused(f"The weight '{name[:80]}' has the unsupported number type {tensor.dtype}.")
        state[name] = tensor.float() if tensor.dtype in floating else tensor
        _check_finite(name, state[name])
    return state


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise refused(f"The weight '{name[:80]}' contains values that are not finite.")


def check_fit(state: Mapping[str, torch.Tensor], network_name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse weights that are not exactly those of the network, before any memory is spent on the network.

    Raises:
        BundleError: the network is not registered, its arguments are invalid, or weights are missing, superfluous, or
            of another shape or kind.
    """
    import torch

    with torch.device("meta"):  # shapes only: hostile sizes cost nothing
        expected = _construct(network_name, arguments).state_dict()
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or extra:
        kind, names = ("lack", missing) if missing else ("have the unknown entry", extra)
        raise refused(f"The weights {kind} '{names[0][:80]}' ({len(missing)} missing, {len(extra)} superfluous).")
    for name, tensor in expected.items():
        found = state[name]
        if found.shape != tensor.shape or found.is_floating_point() != tensor.is_floating_point():
            wanted = f"{list(tensor.shape)}, {tensor.dtype}"
            raise refused(f"The weight '{name}' is {list(found.shape)}, {found.dtype}; the network needs {wanted}.")


def build(state: Mapping[str, torch.Tensor], network_name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """The network with these weights: float32, evaluation mode, on the CPU; the random state is left as it was.

    Raises:
        BundleError: as in `check_fit`.
    """
    import torch

    check_fit(state, network_name, arguments)
    with torch.random.fork_rng(devices=[]):  # loading a model must not change the course of a seeded training
        network = _construct(network_name, arguments)
    network.load_state_dict(dict(state), strict=True)
    return network.float().eval()


def _construct(network_name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    from ..networks import build_network

    try:
        return build_network(network_name, arguments)
    except APFormerError as error:
        remedy = "Fetch the model again, update this program if the model is newer, or choose another model."
        raise BundleError(error.what, error.meaning, remedy) from error
    except Exception as error:  # whatever a constructor makes of a stranger's arguments is a refusal
        raise refused(f"The network '{network_name}' cannot be built from the model's arguments ({error}).") from error
