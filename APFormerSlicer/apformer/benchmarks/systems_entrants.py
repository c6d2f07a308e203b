"""The networks of `apformer benchmark systems`, at sizes that a processor trains in minutes.

APFormer and MobileUtr are as published. The transformers of UNETR and TransUNet are a quarter as wide as ViT-B, and
TransUNet's ResNet is an eighth as wide as published: at full width, a processor takes hours.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..finetuning.levels import lean_arguments
from ..networks import build_network
from ..pruning.joint_search import JointSearch, SearchBudget
from ..pruning.plugin import prune_attention
from .systems_training import DENSE, GATED, SEARCHED, Phase

BASELINE = "monai-unet"
KEEP = 0.3  # of the tokens, of what is pruned by gates
VIT: dict[str, Any] = {"hidden_size": 192, "mlp_dim": 768, "num_heads": 6}
SPARSE = {**VIT, "num_layers": 6, "skip_after": (2, 3, 5), "prune_after": (2, 4), "patch_size": 8, "drop_path": 0.0}
# As published, about 60 % of the operations are the transformer's.
TRANSUNET = {**VIT, "width": 8, "units": (2, 2, 2), "num_layers": 12, "decoder_channels": (96, 48, 32, 16, 8)}

FORMS = ("leanformer",)  # whose arguments can be given, to try them


@dataclass(frozen=True)
class Entrant:
    """A network and how it is trained.

    Attributes:
        build: from image channels, classes and size.
        phases: of its training. budget: of the search, if one of them is a search.
        ssa: see `Training`. system: which of the four systems it belongs to, or MONAI.
        sparse: whether the network itself leaves tokens out.
    """

    system: str
    settings: str
    build: Callable[[int, int, tuple[int, ...]], nn.Module]
    phases: tuple[Phase, ...] = DENSE
    budget: SearchBudget | None = None
    ssa: bool = False
    sparse: bool = False

    @property
    def is_lighter(self) -> bool:
        """Whether it is a lighter form of another one."""
        return self.sparse or self.phases is not DENSE


def entrant(name: str) -> Entrant:
    """One of `ENTRANTS`, or one of them with other arguments: "leanformer[depth=1;channels=(24, 48)]".

    Raises:
        ConfigError: there is none of this name, or its network takes no arguments here.
    """
    plain, bracket, given = name.removesuffix("]").partition("[")
    known = ENTRANTS.get(plain)
    if known is None or (bracket and plain not in FORMS):
        raise ConfigError(f"There is no system {name!r}.", "Nothing was run.", f"Choose from: {', '.join(ENTRANTS)}.")
    if not bracket:
        return known
    try:
        pairs = dict(part.split("=", 1) for part in given.split(";"))
        arguments = {key.strip(): literal_eval(value) for key, value in pairs.items()}
    except (ValueError, SyntaxError) as error:
        raise ConfigError(
            f"The arguments of {name!r} are not understood.", "Nothing was run.", "Write NAME[depth=1;width=128]."
        ) from error
    return replace(known, settings=f"{known.settings}; {given}", build=_registered(plain, **arguments))


def _registered(name: str, **arguments: object) -> Callable[[int, int, tuple[int, ...]], nn.Module]:
    def build(channels: int, classes: int, size: tuple[int, ...]) -> nn.Module:
        shape: dict[str, object] = {"spatial_dims": len(size), "in_channels": channels, "out_channels": classes}
        if name != "mobile_utr":
            shape["image_size"] = size
        if name == "leanformer":
            shape |= lean_arguments(size)
            if "channels" in arguments:  # other levels than those: all strides 2, unless they are given too
                del shape["strides"]
        return build_network(name, {**shape, **arguments})

    return build


def _gated(name: str) -> Callable[[int, int, tuple[int, ...]], nn.Module]:
    def build(channels: int, classes: int, size: tuple[int, ...]) -> nn.Module:
        plain = _registered(name)(channels, classes, size)
        return prune_attention(plain, sample=torch.zeros(1, channels, *size))

    return build


def _searched(
    build: Callable[[int, int, tuple[int, ...]], nn.Module],
) -> Callable[[int, int, tuple[int, ...]], nn.Module]:
    def search(channels: int, classes: int, size: tuple[int, ...]) -> nn.Module:
        return JointSearch(build(channels, classes, size), sample=torch.zeros(1, channels, *size))

    return search


def _monai(name: str) -> Callable[[int, int, tuple[int, ...]], nn.Module]:
    def build(channels: int, classes: int, size: tuple[int, ...]) -> nn.Module:
        try:
            import einops  # noqa: F401
            from monai.networks.nets import UNETR, SwinUNETR, UNet
        except ImportError as error:
            raise ConfigError(
                f"{error.name} is not installed.",
                "MONAI's networks are what the systems are compared with.",
                "Install both packages: pip install monai einops",
            ) from error
        if name == "unet":
            return UNet(
                len(size),
                channels,
                classes,
                channels=(16, 32, 64, 128, 256),
                strides=(2,) * 4,
                num_res_units=2,
                norm="batch",
            )
        if name == "dynunet":
            from .peer import dynunet

            return dynunet(len(size), channels, classes)
        if name == "unetr":
            return UNETR(channels, classes, size, spatial_dims=len(size), feature_size=16, **VIT)
        return SwinUNETR(channels, classes, spatial_dims=len(size), feature_size=12)

    return build


def _told(budget: SearchBudget) -> str:
    return f"-{1 - budget.parameters:.0%} parameters, -{1 - budget.macs:.0%} operations"


_APFORMER, _TRANSUNET = _registered("apformer"), _registered("transunet", **TRANSUNET)
# Convolutions are not cut: a third of TransUNet's operations and two fifths of APFormer's are always left.
_APFORMER_SLIM = {"30": SearchBudget(0.7, 0.7), "50": SearchBudget(0.5, 0.5)}
_TRANSUNET_SLIM = {**_APFORMER_SLIM, "70": SearchBudget(0.3, 0.4)}

ENTRANTS: dict[str, Entrant] = {
    "apformer": Entrant("APFormer", "published", _APFORMER, ssa=True),
    "apformer-pruned": Entrant(
        "APFormer",
        f"published, gates, keep={KEEP:g}",
        _registered("apformer", prune_queries=True, prune_keys=True),
        GATED,
        ssa=True,
    ),
    "leanformer": Entrant("LeanFormer", "32-64-128, 3 layers of 6 heads x 32", _registered("leanformer"), ssa=True),
    "mobile-utr": Entrant("MobileUtr", "published base", _registered("mobile_utr")),
    "mobile-utr-pruned": Entrant(
        "MobileUtr", f"published base, gates of the plug-in, keep={KEEP:g}", _gated("mobile_utr"), GATED
    ),
    "sparse-unetr-dense": Entrant(
        "sparse UNETR",
        "192 wide, 6 layers, patches of 8, r = 0",
        _registered("sparse_unetr", prune_ratio=0.0, **SPARSE),
    ),
    **{
        f"sparse-unetr-{ratio * 100:.0f}": Entrant(
            "sparse UNETR",
            f"192 wide, 6 layers, patches of 8, r = {ratio:g} twice",
            _registered("sparse_unetr", prune_ratio=ratio, **SPARSE),
            sparse=True,
        )
        for ratio in (0.5, 0.75, 0.9)
    },
    "transunet": Entrant("joint search", "ResNet 8 wide, ViT 192 wide, 12 layers", _TRANSUNET),
    **{
        f"transunet-slim-{less}": Entrant(
            "joint search", f"transunet, {_told(budget)}", _searched(_TRANSUNET), SEARCHED, budget
        )
        for less, budget in _TRANSUNET_SLIM.items()
    },
    **{
        f"apformer-slim-{less}": Entrant(
            "joint search", f"apformer, {_told(budget)}", _searched(_APFORMER), SEARCHED, budget, ssa=True
        )
        for less, budget in _APFORMER_SLIM.items()
    },
    BASELINE: Entrant("MONAI", "16-32-64-128-256, 2 residual units, batch norm", _monai("unet")),
    "monai-dynunet": Entrant("MONAI", "5 levels of 3 x 3, 16 to 256 filters", _monai("dynunet")),
    "monai-unetr": Entrant("MONAI", "192 wide, 12 layers, patches of 16, feature size 16", _monai("unetr")),
    "monai-swin-unetr": Entrant("MONAI", "feature size 12", _monai("swin")),
}
