"""Token-sparse UNETR: sparse encoding, token completion, dense decoding (Zhou et al., IPMI 2023, arXiv 2303.06522).

A vision transformer drops the least important tokens at three of its blocks (soft top-K token pruning, STP), what it
dropped and what it kept are put together again (multi-layer token assembly, MTA), and UNETR's decoder works on the
whole map. With `prune_ratio=0` nothing is dropped or assembled: the class is UNETR (Hatamizadeh et al., WACV 2022).

The paper's text was not at hand in full; sizes and formulas follow the authors' released code. Differences from it:
2D, any image size (learned positions are interpolated, fixed ones computed for the grid, the image is padded and
cropped), stochastic depth leaves out a block of the transformer and not each of its two branches, ties between scores
go to the earlier token, at least one token is kept. docs/networks.md has the formulas and the counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pruning.adapters import TorchEncoderLayer
from ..pruning.auxiliaries import Auxiliaries
from .parts import crop_to, drop_path, pad_to_cells
from .unetr_decoder import NORMS, PATCH_SIZES, Decoder, DecoderShape

PERTURBATIONS = ("gumbel", "none")
WAVELENGTH = 10000.0  # longest of the fixed positions, as in the first transformer
LAYER_NORM_EPS = 1e-6  # released code


@dataclass(frozen=True)
class SparseUnetrConfig:
    """Shape of a token-sparse UNETR. The defaults are the published network for BTCV; names are those of MONAI's UNETR.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: image channels and classes, background included.
        image_size: size, (rows, columns) or (depth, rows, columns), that the positions are learned on.
        patch_size: voxels per token along every axis: 8 as published, or 16 as in UNETR.
        hidden_size, mlp_dim, num_heads, num_layers: of the transformer; the defaults are ViT-B.
        feature_size: width of the decoder at full resolution.
        cls_token: a token without a place, which is never dropped. Published with one; MONAI's UNETR has none.
        skip_after: blocks whose output the decoder's three skip connections take where nothing is pruned. MONAI's UNETR
            takes hidden states 3, 6 and 9, counted from 0.
        prune_ratio: share of the tokens dropped at each place, 0.9 for BTCV and 0.75 for BraTS; 0 is UNETR.
        prune_after: blocks behind which tokens are dropped.
        perturbation: in training, "gumbel" adds Gumbel noise to the scores (STP), "none" does not (an ablation).
        temperature: of the softmax through which the scores learn.
        completion_depth: transformer blocks of the assembly.
        drop_path: probability with which the last block is left out in training; it grows linearly over the blocks.
        norm: of the decoder, "instance" (published) or "batch".
    """

    spatial_dims: int = 3
    in_channels: int = 1
    out_channels: int = 14
    image_size: tuple[int, ...] = (96, 96, 96)
    patch_size: int = 8
    hidden_size: int = 768
    mlp_dim: int = 3072
    num_heads: int = 12
    num_layers: int = 12
    feature_size: int = 16
    cls_token: bool = True
    skip_after: tuple[int, int, int] = (4, 7, 10)
    prune_ratio: float = 0.9
    prune_after: tuple[int, ...] = (3, 6, 9)
    perturbation: str = "gumbel"
    temperature: float = 1.0
    completion_depth: int = 1
    drop_path: float = 0.1
    norm: str = "instance"

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen; JSON and TOML bring lists

        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {self.spatial_dims!r}")
        counts = ("in_channels", "out_channels", "hidden_size", "mlp_dim", "num_heads", "num_layers", "feature_size")
        for name in (*counts, "completion_depth"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 8192:
                raise ValueError(f"{name} must be an integer from 1 to 8192, not {value!r}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size must be a multiple of num_heads, not {self.hidden_size} / {self.num_heads}")
        if self.patch_size not in PATCH_SIZES:
            raise ValueError(f"patch_size must be one of {PATCH_SIZES}, not {self.patch_size!r}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, not {self.norm!r}")
        if self.perturbation not in PERTURBATIONS:
            raise ValueError(f"perturbation must be one of {PERTURBATIONS}, not {self.perturbation!r}")
        if not isinstance(self.cls_token, bool):
            raise ValueError(f"cls_token must be true or false, not {self.cls_token!r}")
        for name in ("prune_ratio", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)!r}")
        if not 0 < self.temperature <= 1000:
            raise ValueError(f"temperature must be above 0 and at most 1000, not {self.temperature!r}")
        settle("image_size", tuple(int(v) for v in self.image_size))
        if len(self.image_size) != self.spatial_dims or not all(8 <= v <= 1024 for v in self.image_size):
            raise ValueError(f"image_size must be {self.spatial_dims} sizes from 8 to 1024, not {self.image_size!r}")
        self._settle_places(settle, "skip_after", 3)
        self._settle_places(settle, "prune_after", None)

    def _settle_places(self, settle: Callable[[str, object], None], name: str, count: int | None) -> None:
        places = tuple(int(v) for v in getattr(self, name))
        rising = all(a < b for a, b in pairwise(places))
        if not places or len(places) != (count or len(places)) or not rising:
            raise ValueError(f"{name} must be {count or 'some'} rising numbers of blocks, not {places!r}")
        if places[0] < 1 or places[-1] > self.num_layers:
            raise ValueError(f"{name} must be from 1 to the number of layers, {self.num_layers}, not {places!r}")
        settle(name, places)

    @property
    def cell(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return (self.patch_size,) * self.spatial_dims

    @property
    def base_grid(self) -> tuple[int, ...]:
        """Token grid of an image of `image_size`."""
        return tuple(-(-size // self.patch_size) for size in self.image_size)

    def kept(self, tokens: int) -> int:
        """Of so many tokens, how many one place keeps: the whole part of tokens * (1 - prune_ratio), at least 1."""
        # 1e-9: in binary, 1000 * (1 - 0.9) is a little less than 100
        return max(1, math.floor(tokens * (1 - self.prune_ratio) + 1e-9))


def transformer_block(config: SparseUnetrConfig) -> nn.TransformerEncoderLayer:
    """Pre-norm block of a ViT.

    Tokens come first, (N, B, width): with batch_first torch takes a fused layer in evaluation, which writes whole
    attention maps and was slower at these lengths (1729 tokens, one thread: 1006 against 780 ms).
    """
    widths = (config.hidden_size, config.num_heads, config.mlp_dim)
    return nn.TransformerEncoderLayer(
        *widths, dropout=0.0, activation="gelu", norm_first=True, layer_norm_eps=LAYER_NORM_EPS
    )


def run_block(block: nn.Module, tokens: Tensor) -> Tensor:
    """Tokens (B, N, width) through a block that takes (N, B, width)."""
    found: Tensor = block(tokens.transpose(0, 1)).transpose(0, 1)
    return found


def take(rows: Tensor, index: Tensor) -> Tensor:
    """The rows (B, N, width) that index (B, K) names, each image its own: (B, K, width)."""
    batch, count, width = rows.shape
    flat = index + count * torch.arange(batch, device=index.device)[:, None]
    return rows.reshape(-1, width).index_select(0, flat.flatten()).reshape(batch, -1, width)


class Cut(NamedTuple):
    """What STP does with tokens: kept (B, K, width), dropped (B, N - K, width), and their indices."""

    kept: Tensor
    dropped: Tensor
    kept_index: Tensor
    dropped_index: Tensor


class TokenPruner(nn.Module):
    """Soft top-K token pruning (STP): a small network scores tokens, the K best stay.

    score_n = log sigmoid(MLP([local half of h_n, mean over tokens of the other half])), h = GELU(Linear(LN(x))).
    In training the top K of s' = (score + Gumbel noise) / temperature are kept. The choice m is 1 or 0; backward it
    has the gradient of softmax(s') (straight-through): kept tokens are multiplied by m, dropped ones by 1 - m, both 1.
    In evaluation the top K of the scores are kept.
    """

    def __init__(self, config: SparseUnetrConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.embed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        half, quarter = max(1, width // 2), max(1, width // 4)
        self.score = nn.Sequential(
            nn.Linear(width, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 1)
        )

    def scores(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, width) -> log of their importance (B, N), at most 0."""
        local, shared = self.embed(tokens).tensor_split(2, dim=-1)
        shared = shared.mean(dim=1, keepdim=True).expand(-1, tokens.shape[1], -1)
        return F.logsigmoid(self.score(torch.cat([local, shared], dim=-1))[..., 0].float())

    def forward(self, tokens: Tensor) -> Cut:
        """Tokens (B, N, width) without the cls token."""
        scores = self.scores(tokens)
        if self.training and self.config.perturbation == "gumbel":
            smallest = torch.finfo(scores.dtype).tiny
            scores = scores - torch.empty_like(scores).exponential_().clamp_min(smallest).log()
        count = self.config.kept(tokens.shape[1])
        order = scores.detach().argsort(dim=1, descending=True, stable=True)
        kept_index, dropped_index = order[:, :count].sort(1).values, order[:, count:].sort(1).values
        kept, dropped = take(tokens, kept_index), take(tokens, dropped_index)
        if self.training:
            soft = (scores / self.config.temperature).softmax(dim=1)
            choice = (soft - soft.detach()).to(tokens.dtype)  # zero, with the gradient of the softmax
            kept = kept * (1 + choice.gather(1, kept_index))[..., None]
            dropped = dropped * (1 - choice.gather(1, dropped_index))[..., None]
        return Cut(kept, dropped, kept_index, dropped_index)


def fixed_positions(grid: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the places on the grid, (N, width); columns that do not divide over the axes are zero."""
    bands = width // (2 * len(grid))
    rates = WAVELENGTH ** (-torch.arange(bands, device=device) / max(1, bands))
    axes = torch.meshgrid(*(torch.arange(length, device=device) for length in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in axes]
    waves = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return F.pad(waves, (0, width - waves.shape[1]))


class TokenAssembly(nn.Module):
    """Multi-layer token assembly (MTA): the dropped groups and the kept tokens become one map again.

    Every group has its own linear layer and a learned token that says which group it is from. In grid order, with fixed
    positions, they pass a transformer block, a norm and a linear layer. The linear layers start as the identity (the
    paper does not say how): all groups come from one residual stream, and layers drawn for each of them would have the
    decoder see the same content in as many random bases.
    """

    def __init__(self, config: SparseUnetrConfig) -> None:
        super().__init__()
        width, groups = config.hidden_size, len(config.prune_after) + 1
        self.enter = nn.ModuleList(nn.Linear(width, width) for _ in range(groups))
        self.origin = nn.Parameter(torch.zeros(groups, width))
        self.blocks = nn.ModuleList(transformer_block(config) for _ in range(config.completion_depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.leave = nn.Linear(width, width)
        for layer in (*self.enter, self.leave):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, groups: Sequence[Tensor], places: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        """Groups (B, n_g, width), the last one after its leading cls token if any; where they belong on the grid.

        Args:
            places: (B, n_g) numbers of cells; all groups together hold each cell once.

        Returns: (B, N, width) in grid order, without the cls token.
        """
        entered = [enter(group) + origin for enter, group, origin in zip(self.enter, groups, self.origin, strict=True)]
        where = torch.cat(list(places), dim=1)
        tokens = torch.cat([*entered[:-1], entered[-1][:, -places[-1].shape[1] :]], dim=1)
        positions = fixed_positions(grid, tokens.shape[-1], tokens.device).to(tokens.dtype)
        tokens = take(tokens, where.argsort(dim=1)) + positions
        leading = groups[-1].shape[1] - places[-1].shape[1]
        tokens = torch.cat([entered[-1][:, :leading], tokens], dim=1)
        for block in self.blocks:
            tokens = run_block(block, tokens)
        return self.leave(self.norm(tokens[:, leading:]))


class Encoded(NamedTuple):
    """maps (B, hidden, *grid): three for the skip connections and the deepest; kept (B, N); blocks' tokens in order."""

    maps: list[Tensor]
    kept: Tensor
    lengths: list[int]


class SparseUnetr(nn.Module):
    """The network. Arguments are those of `SparseUnetrConfig`, as keywords.

    `forward(image)` maps (B, in_channels, *size) to logits (B, out_channels, *size) for any size; with
    `auxiliaries=True` it returns (logits, Auxiliaries). There, `kept` is 1 for tokens that no place dropped, and there
    is neither a prune head (scores are learned from the segmentation) nor a list of queries and keys.

    Example:
        >>> small = {"hidden_size": 12, "mlp_dim": 24, "num_heads": 2, "feature_size": 2}
        >>> network = SparseUnetr(spatial_dims=2, out_channels=3, image_size=(64, 64), **small)
        >>> network(torch.zeros(1, 1, 50, 70)).shape
        torch.Size([1, 3, 50, 70])
    """

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.config = config = SparseUnetrConfig(**arguments)  # type: ignore[arg-type]
        width, conv = config.hidden_size, nn.Conv2d if config.spatial_dims == 2 else nn.Conv3d
        self.embedding = conv(config.in_channels, width, kernel_size=config.patch_size, stride=config.patch_size)
        self.cls = nn.Parameter(1e-6 * torch.randn(1, 1, width)) if config.cls_token else None
        self.leading = 1 if config.cls_token else 0
        self.positions = nn.Parameter(torch.empty(1, self.leading + math.prod(config.base_grid), width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(transformer_block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        places = config.prune_after if config.prune_ratio > 0 else ()
        self.pruners = nn.ModuleList(TokenPruner(config) for _ in places)
        self.group_norms = nn.ModuleList(nn.LayerNorm(width, eps=LAYER_NORM_EPS) for _ in places)
        self.assembly = TokenAssembly(config) if places else None
        shape = {name: getattr(config, name) for name in DecoderShape.__dataclass_fields__}
        self.decoder = Decoder(DecoderShape(**shape))
        self.cost = TorchEncoderLayer("blocks.0", self.blocks[0]).cost

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """See the class."""
        size = image.shape[2:]
        image = pad_to_cells(image, self.config.cell)
        features = self.embedding(image)  # (B, 768, 12, 12, 12) in the published setting
        grid = tuple(features.shape[2:])
        tokens = features.flatten(2).transpose(1, 2)  # (B, 1728, 768)
        tokens = self._with_positions(tokens, grid)  # (B, 1729, 768): the cls token leads
        encoded = self._dense(tokens, grid) if self.assembly is None else self._sparse(tokens, grid)
        logits = crop_to(self.decoder(image, *encoded.maps), size)
        if not auxiliaries:
            return logits
        macs = sum(float(self.cost.macs(length, length)) for length in encoded.lengths)
        spent = tokens.new_full((tokens.shape[0],), macs, dtype=torch.float32)
        return logits, Auxiliaries(None, [], self.config.cell, encoded.kept.unflatten(1, grid), spent)

    def _with_positions(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        leading, cells = self.positions[:, : self.leading], self.positions[:, self.leading :]
        if grid != self.config.base_grid:
            mode = "bicubic" if len(grid) == 2 else "trilinear"
            cells = cells.transpose(1, 2).unflatten(2, self.config.base_grid)
            cells = F.interpolate(cells, size=grid, mode=mode, align_corners=True).flatten(2).transpose(1, 2)
        tokens = tokens + cells
        return tokens if self.cls is None else torch.cat([(self.cls + leading).expand(len(tokens), -1, -1), tokens], 1)

    def _block(self, number: int, tokens: Tensor) -> Tensor:
        """Block `number`, from 1."""
        rate = self.config.drop_path * (number - 1) / max(1, self.config.num_layers - 1)
        changed = run_block(self.blocks[number - 1], tokens)
        return tokens + drop_path(changed - tokens, rate, True) if self.training and rate else changed

    def _map(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, N, width) -> (B, width, *grid)."""
        return tokens.transpose(1, 2).unflatten(2, grid)

    def _dense(self, tokens: Tensor, grid: tuple[int, ...]) -> Encoded:
        maps, length = [], tokens.shape[1]
        for number in range(1, self.config.num_layers + 1):
            tokens = self._block(number, tokens)
            if number in self.config.skip_after:
                maps.append(self._map(tokens[:, self.leading :], grid))
        cells = self.norm(tokens[:, self.leading :])
        kept = torch.ones_like(cells[..., 0], dtype=torch.float32)
        return Encoded([*maps, self._map(cells, grid)], kept, [length] * self.config.num_layers)

    def _sparse(self, tokens: Tensor, grid: tuple[int, ...]) -> Encoded:
        assert self.assembly is not None
        batch, count = tokens.shape[0], math.prod(grid)
        place = torch.arange(count, device=tokens.device).expand(batch, -1)  # (B, n), of the tokens that are left
        kept = torch.zeros_like(place, dtype=torch.float32)
        groups: list[Tensor] = []
        places: list[Tensor] = []
        lengths = []
        for number in range(1, self.config.num_layers + 1):
            lengths.append(tokens.shape[1])
            tokens = self._block(number, tokens)
            if number in self.config.prune_after:
                cut: Cut = self.pruners[len(groups)](tokens[:, self.leading :])
                places.append(place.gather(1, cut.dropped_index))
                groups.append(self.group_norms[len(groups)](cut.dropped))
                place = place.gather(1, cut.kept_index)
                tokens = torch.cat([tokens[:, : self.leading], cut.kept], dim=1)
        completed = self.assembly([*groups, self.norm(tokens)], [*places, place], grid)
        lengths += [self.leading + count] * self.config.completion_depth
        return Encoded([self._map(completed, grid)] * 4, kept.scatter(1, place, 1.0), lengths)
