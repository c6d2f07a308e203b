"""Beginning from a trained model instead of from random weights."""

from __future__ import annotations

from torch import nn

from ..bundles import Bundle
from ..errors import ConfigError
from ..pruning.gates import DependencyGate, QueryGate
from .config import TrainingConfig


def load_base(network: nn.Module, base: Bundle, config: TrainingConfig) -> None:
    """Give `network` the weights of `base`. Gates that the base lacks keep their initial values.

    A network that normalises each instance takes the weights of a base that normalises batches; the base's running
    statistics, which it has no use for, are left behind.

    Raises:
        ConfigError: labels or channels differ, or the weights do not fit the network.
        BundleError: the base cannot be read.
    """
    names = [label.name for label in config.labels]
    base_names = [label.name for label in base.labels]
    if names != base_names:
        raise _unfit(base, f"its labels are {', '.join(base_names)}, not {', '.join(names)}")
    state = base.build_network().state_dict()
    own = network.state_dict()
    if not any(_is_statistic(name) for name in own):
        state = {name: tensor for name, tensor in state.items() if not _is_statistic(name)}
    gates = {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, QueryGate | DependencyGate)
        for name in module.state_dict()
    }
    missing, extra = set(own) - set(state) - gates, set(state) - set(own)
    if missing or extra:
        raise _unfit(base, f"its network and [network] differ, for example in {min(missing | extra)}")
    wrong = [name for name, tensor in state.items() if own[name].shape != tensor.shape]
    if wrong:
        raise _unfit(base, f"{wrong[0]} has the shape {tuple(state[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}")
    network.load_state_dict({**own, **state})


def _is_statistic(name: str) -> bool:
    """Of a batch norm: what it has seen, rather than learned."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def _unfit(base: Bundle, reason: str) -> ConfigError:
    return ConfigError(
        f"{base.name} {base.version} cannot be the base of this training: {reason}.",
        "Its weights would not mean the same in the new network.",
        "Correct the configuration, or choose another base.",
    )
