"""A training configuration: a TOML file that says all there is to repeat a training."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..bundles.fields import Fields
from ..bundles.labels import Label
from ..bundles.preprocessing import Preprocessing
from ..errors import APFormerError, ConfigError
from ..pruning.budget import Budget

PRECISIONS = ("float32", "bfloat16")
GATES = ("closed", "open", "tighten", "hold", "hard", "ready")
T = TypeVar("T")


def _refuse(what: str) -> ConfigError:
    return ConfigError(what, "The training cannot start.", "Correct the configuration file.")


@dataclass(frozen=True)
class Stage:
    """One stretch of the schedule. Sizes may grow from stage to stage: coarse images are quick to learn from.

    Args:
        epochs: passes over the training cases; 0 where stages have shares.
        share: of all steps, or of the time, instead of epochs; see `schedule`.
        size: (rows, columns) of 2D training images, or the (k, j, i) patch cut from a 3D image.
        crop: 2D only: cut `size` from a random place at full resolution, instead of shrinking the whole image to it.
        batch_size: images per step.
        learning_rate, final_learning_rate: ends of the stage's cosine.
        learn_position: train the positional tables; frozen tables let attention run through its fused kernel.
        ssa_every: steps between two evaluations of the SSA loss (it needs whole attention maps); 0 = never.
        validate_every: epochs between two validations.
        gates: "closed": nothing is pruned. "open": gates learn from the segmentation alone. "tighten": the budget falls
            from the dense cost to [pruning] budget. "hold": it stays there. "hard": gates are frozen and pruning is
            real, so that the weights recover. "ready": "closed" until the prune head knows the cases, then "hard";
            see `training.gates`. Validation prunes in all of them but while gates are closed.
    """

    epochs: int
    size: tuple[int, ...]
    batch_size: int
    learning_rate: float
    share: float = 0.0
    final_learning_rate: float = 1e-5
    crop: bool = False
    learn_position: bool = True
    ssa_every: int = 1
    validate_every: int = 5
    gates: str = "closed"

    def cuts(self, spatial_dims: int) -> bool:
        """Whether images are cut to `size`, rather than shown whole in it."""
        return spatial_dims == 3 or self.crop


@dataclass(frozen=True)
class LossWeights:
    """Published: 0.8 segmentation + 0.1 SSA + 0.1 prune head; cross-entropy and Dice weigh the same in each.

    balanced: what `losses.balanced_entropy` adds to the segmentation's at first; it fades while structures are found.
    """

    segmentation: float = 0.8
    ssa: float = 0.1
    prune_head: float = 0.1
    balanced: float = 0.0


@dataclass(frozen=True)
class Pruning:
    """How gates are trained.

    Args:
        budget: "keep=0.3" or "speed=2x", see `pruning.budget.Budget`.
        gate_rate: learning rate of the gates, times that of the weights: a gate is one number with a long way to go.
        energy: share of what heads and channels contribute, per layer and kind, that may be removed after training;
            0 removes only what never contributes. See `pruning.compact`.
        idle: a layer's dependency gate is removed after training if the transformer then costs at most this share more;
            0 removes none. See `pruning.idle`.
        final_keep: after training, the query threshold is moved until this share of the tokens, safety ring included,
            is kept on average over the training images; without it, the learned threshold stays.
    """

    budget: str
    gate_rate: float = 20.0
    energy: float = 0.0
    idle: float = 0.0
    final_keep: float | None = None


@dataclass(frozen=True)
class Split:
    """Which cases validate: those whose patient number, the group `number` of `pattern`, is `remainder` mod `modulus`.

    The group `patient` (default: all of the match) says which files belong to one patient; a patient is never divided.
    """

    pattern: str
    modulus: int = 5
    remainder: int = 1


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes; a probability p of 0 switches one off.

    Angles are in degrees, lengths relative to the image, intensities in units of the scaled image.
    """

    flip_axes: tuple[int, ...] = ()
    flip_p: float = 0.5
    rotate90_p: float = 0.0
    affine_p: float = 0.9
    rotate_degrees: float = 15.0
    stretch: float = 0.1
    zoom_p: float = 0.6
    zoom: tuple[float, float] = (0.8, 1.25)
    translate: float = 0.08
    shear: float = 0.05
    elastic_p: float = 0.0
    noise_p: float = 0.3
    noise_std: float = 0.1
    blur_p: float = 0.2
    low_resolution_p: float = 0.2
    contrast_p: float = 0.4
    gamma: tuple[float, float] = (0.6, 1.6)
    intensity_p: float = 0.5
    intensity_scale: float = 0.15
    intensity_shift: float = 0.1
    bias_field_p: float = 0.0
    empty_p: float = 0.0
    replace_p: float = 0.0
    organ_p: float = 0.0
    organ_shift: tuple[float, float] = (-0.3, 0.15)
    lesion_p: float = 0.0
    lesion_shift: tuple[float, float] = (-0.4, 0.2)


@dataclass(frozen=True)
class TrainingConfig:
    """All of a training. See `Configs/*.toml` for worked examples."""

    name: str
    version: str
    description: str
    modality: str
    channels: int
    data_licence: str
    labels: tuple[Label, ...]
    preprocessing: Preprocessing
    network: str
    network_arguments: dict[str, Any]
    split: Split
    stages: tuple[Stage, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)
    losses: LossWeights = field(default_factory=LossWeights)
    seed: int = 5000  # the released code's
    precision: str = "float32"
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.05
    ema_decay: float = 0.995
    ema_reach: float = 0.0  # instead: the share of the training that the average reaches back over
    keep_statistics: bool = False  # of batch norms: they stay what they are, in every step
    gradient_clip: float = 2.0
    pruning: Pruning | None = None
    card: dict[str, str] = field(default_factory=dict)
    file: str = ""  # that it was read from, with the folder it is in: "Configs/liver-ct.toml"

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the whole, per stage; their sum is 1."""
        parts = [stage.share or float(stage.epochs) for stage in self.stages]
        return tuple(part / sum(parts) for part in parts)


def _table(cls: type[T], values: Any, where: str) -> T:
    """A dataclass from a TOML table; unknown or missing keys are named."""
    if not isinstance(values, Mapping):
        raise _refuse(f"[{where}] is not a table.")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise _refuse(f"[{where}] has the unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}.")
    settled = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return cls(**settled)
    except TypeError as error:
        raise _refuse(f"[{where}] does not fit: {error}.") from error


def _check(config: TrainingConfig) -> TrainingConfig:
    if [label.value for label in config.labels] != list(range(1, len(config.labels) + 1)):
        raise _refuse("The label values must be 1, 2, 3 ... in this order: they are the network's output channels.")
    if not config.stages:
        raise _refuse("The configuration has no [[stages]].")
    for number, stage in enumerate(config.stages, 1):
        if min(stage.epochs, stage.batch_size, stage.validate_every) < 1 or stage.learning_rate <= 0:
            raise _refuse(f"Stage {number} needs epochs, batch_size, validate_every >= 1 and learning_rate > 0.")
        if not 0 <= stage.final_learning_rate <= stage.learning_rate:
            raise _refuse(f"Stage {number} needs 0 <= final_learning_rate <= learning_rate.")
        if len(stage.size) != config.preprocessing.spatial_dims:
            raise _refuse(
                f"Stage {number} has a size of {len(stage.size)} axes for a {config.preprocessing.spatial_dims}D model."
            )
    _check_gates(config)
    if config.precision not in PRECISIONS:
        raise _refuse(f"precision is {config.precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    try:
        groups = re.compile(config.split.pattern).groupindex
    except re.error as error:
        raise _refuse(f"split.pattern is not a regular expression: {error}.") from error
    if "number" not in groups:
        raise _refuse("split.pattern has no group named 'number', such as (?P<number>[0-9]+).")
    return config


def _check_gates(config: TrainingConfig) -> None:
    for number, stage in enumerate(config.stages, 1):
        if stage.gates not in GATES:
            raise _refuse(f"Stage {number} has gates = {stage.gates!r}; it must be one of {', '.join(GATES)}.")
    gated = config.network == "pruned" or config.network_arguments.get("prune_queries")
    if any(stage.gates != "closed" for stage in config.stages):
        if not gated:
            raise _refuse("A stage trains gates, but [network] does not set prune_queries = true.")
        if config.pruning is None:
            raise _refuse("A stage trains gates, but there is no [pruning] with a budget.")
    if config.pruning is not None:
        Budget.parse(config.pruning.budget)
        if not 0 <= config.pruning.energy < 1 or config.pruning.gate_rate <= 0:
            raise _refuse("[pruning] needs 0 <= energy < 1 and gate_rate > 0.")
        if not 0 <= config.pruning.idle < 1:
            raise _refuse("[pruning] needs 0 <= idle < 1.")
        keep = config.pruning.final_keep
        if keep is not None and not (isinstance(keep, int | float) and 0 < keep <= 1):
            raise _refuse(f"[pruning] final_keep is {keep!r}; it must be a share of the tokens above 0 and up to 1.")
        if keep is not None and not config.network_arguments.get("prune_queries"):
            raise _refuse("[pruning] has a final_keep, but [network] does not set prune_queries = true.")


def parse_config(values: Mapping[str, Any]) -> TrainingConfig:
    """A configuration from plain data; ConfigError names what does not fit."""
    rest = dict(values)
    try:
        labels = tuple(Label.from_fields(Fields(item, f"label {n}")) for n, item in enumerate(rest.pop("labels"), 1))
        preprocessing = Preprocessing.from_dict(rest.pop("preprocessing"), "[preprocessing]")
        network = rest.pop("network")
        settled = {
            "labels": labels,
            "preprocessing": preprocessing,
            "network": network.pop("name"),
            "network_arguments": network,
            "split": _table(Split, rest.pop("split"), "split"),
            "stages": tuple(_table(Stage, item, "stages") for item in rest.pop("stages")),
            "augmentation": _table(Augmentation, rest.pop("augmentation", {}), "augmentation"),
            "losses": _table(LossWeights, rest.pop("losses", {}), "losses"),
            "pruning": _table(Pruning, rest.pop("pruning"), "pruning") if "pruning" in rest else None,
        }
    except KeyError as error:
        raise _refuse(f"The configuration has no {error.args[0]!r}.") from error
    except ConfigError:
        raise
    except APFormerError as error:
        raise _refuse(error.what) from error
    return _check(_table(TrainingConfig, {**rest, **settled}, "configuration"))


def read_config(path: Path) -> TrainingConfig:
    """Read a TOML configuration. With `inherits = "FILE"` it holds only what differs from that file beside it."""
    return replace(parse_config(_read_values(path)), file=f"{path.parent.name}/{path.name}".lstrip("/"))


def _read_values(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refuse(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _refuse(f"The configuration {path} is not valid TOML: {error}.") from error
    parent = values.pop("inherits", None)
    if parent is None:
        return values
    if not isinstance(parent, str) or Path(parent).name != parent or parent == path.name:
        raise _refuse(f"{path} inherits from {parent!r}; it must be another file in the same folder.")
    inherited = _read_values(path.with_name(parent))
    for key, value in values.items():  # tables are merged key by key, everything else is replaced
        table = isinstance(value, dict) and isinstance(inherited.get(key), dict)
        inherited[key] = {**inherited[key], **value} if table else value
    return inherited
