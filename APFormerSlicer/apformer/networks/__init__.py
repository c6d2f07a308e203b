"""Published networks, our own form, and the registry through which bundles and configurations name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from ..errors import ConfigError
from .apformer import APFormer
from .leanformer import LeanFormer
from .mobile_utr import MobileUtr
from .pruned import Pruned
from .slimmed import Slimmed
from .sparse_unetr import SparseUnetr
from .transunet import TransUnet

_REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "apformer": APFormer,
    "leanformer": LeanFormer,
    "mobile_utr": MobileUtr,
    "sparse_unetr": SparseUnetr,
    "transunet": TransUnet,
    "pruned": Pruned,
    "slimmed": Slimmed,
}
NETWORK_NAMES = tuple(_REGISTRY)


def build_network(name: str, arguments: Mapping[str, object]) -> nn.Module:
    """Construct a registered network from plain data.

    Raises:
        ConfigError: the name is not registered or the arguments do not fit.
    """
    if name not in _REGISTRY:
        raise ConfigError(
            f"The network {name!r} is not registered.",
            "Only networks that come with this program are ever built from a file.",
            f"Use one of: {', '.join(NETWORK_NAMES)}.",
        )
    try:
        return _REGISTRY[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The arguments of the network {name!r} do not fit: {error}.",
            "The network cannot be built.",
            "Correct the arguments in the configuration or the bundle's configs/network.json.",
        ) from error


@contextmanager
def registered(name: str, build: Callable[..., nn.Module]) -> Iterator[None]:
    """While this lasts, `build` is a network like those that come with this program: to compare them with others'."""
    if name in _REGISTRY:
        raise ValueError(f"there is a network {name!r} already")
    _REGISTRY[name] = build
    try:
        yield
    finally:
        del _REGISTRY[name]
