"""Joint search over attention dimensions, MLP widths and patches: a network is trained once with learnable masks under
one uniform L1 penalty, cut to a budget, and briefly trained on.

    search = JointSearch(network, sample=torch.zeros(1, 1, 128, 128))
    ...                                     # train: task loss + search.penalty(), with search.parameter_groups()
    search.decide(SearchBudget(parameters=0.7, macs=0.7))
    small = search.slice()                  # as small as decided, and what the masked network computes
    ...                                     # train on, briefly

DFTransUnet-slim (Zheng et al., J. Imaging 2024, 10(9) 206) and ViT-Slim (Chavan et al., CVPR 2022), whose released code
the masks follow. Both set masks to 0 and count what could be saved; here matrices are cut and patches are not computed.
The first paper's text was not at hand in full. Filled in by this design: one weight for all masks, patches as weights
of keys (see `search_block`), kept masks are multiplied into the matrices, and the pixel classification module.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PruningError
from .adapters import view_class
from .flops import count_macs, count_parameters
from .gates import QueryGate
from .search_block import SearchBlock, Session, take_apart
from .search_network import SearchedNetwork
from .search_pixels import PixelClassifier
from .search_ranking import Kept, SearchBudget, Whole, rank
from .stack import TokenGrid, find_stack

# Of a mask's L1 norm. ViT-Slim's example has 2e-4, 5e-5 and 1e-4 for the three kinds.
PENALTY = 1e-4
# Learning rate of masks, times that of the weights: ViT-Slim gives them 50 epochs at the same rate.
MASK_RATE = 10.0
PIXEL_CHANNELS = 8


class JointSearch(SearchedNetwork):
    """A network with masks over its transformer blocks.

    Args:
        network: maps images (B, C, *size) to logits; APFormer (dense), MobileUtr, SparseUnetr, TransUnet, or another
            network around MONAI's TransformerBlock or torch's TransformerEncoderLayer. It is copied. What an earlier
            search has left of one (`SearchedNetwork`) is searched for dimensions and channels; its patches and its
            pixel classification module stay as they are.
        sample: a batch of images on its device, of the size that patches are searched for.
        patches: whether patches are searched. That takes blocks which all see the same tokens; without, blocks anywhere
            in the network are searched, as in the token-sparse UNETR. Patches are places on the image: they suit
            images that show the same thing at the same place.
        pixel_channels: of the pixel classification module; 0 leaves it out.
        penalty: weight of the L1 norm of all masks.
        grid, stack: see `prune_attention`.

    Raises:
        PruningError: there are no such blocks, or one computes something that cannot be masked, or the network has
            gates.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        sample: Tensor,
        patches: bool = True,
        pixel_channels: int = PIXEL_CHANNELS,
        penalty: float = PENALTY,
        grid: Sequence[int] | None = None,
        stack: str | None = None,
    ) -> None:
        if any(isinstance(module, QueryGate) for module in network.modules()):
            raise PruningError(
                f"{type(network).__name__} has gates.",
                "A gate decides from image to image what a search decides once.",
                "Search the dense network.",
            )
        network = copy.deepcopy(network)
        parameter = next(network.parameters())
        shape = (1, *sample.shape[1:])
        macs, parameters = count_macs(network, shape).total, count_parameters(network)
        added = None
        if isinstance(network, SearchedNetwork):
            where, session, pixels = network.session.grid, Session(network.session.grid), network.pixels
            blocks = {name: _again(block, session) for name, block in zip(network.names, network.blocks, strict=True)}
            network = network.network
        else:
            names, where = _find_blocks(network, sample, patches, grid, stack)
            everything = None if where is None else torch.ones(_base_grid(where, sample), dtype=torch.bool)
            session = Session(where)
            blocks = {
                name: SearchBlock(take_apart(name, network.get_submodule(name)), session, everything, masks=True)
                for name in names
            }
            pixels = PixelClassifier(sample.ndim - 2, sample.shape[1], pixel_channels) if pixel_channels else None
            added = pixels
        super().__init__(network, blocks, session, pixels)
        self.to(device=parameter.device, dtype=parameter.dtype).train(network.training)
        self.weight = penalty
        _look(self, sample)
        self.whole = Whole(
            parameters,
            macs,
            0 if added is None else count_parameters(added),
            count_macs(self, shape).total - macs,  # masks only multiply elements
            tuple(block.seen for block in self.blocks),
            0 if where is None else where.leading,
        )

    def penalty(self) -> Tensor:
        """The uniform L1 norm of all masks, weighted; 0 once they are decided."""
        blocks = [block for block in self.blocks if block.stays is None]
        masks: list[Tensor] = []
        for block in blocks:
            masks += [mask for mask in (block.dim_mask, block.hidden_mask) if mask is not None]
        masks += [block.patch_weights() for block in blocks if block.patch_mask is not None]
        total = sum((mask.abs().sum() for mask in masks), start=torch.zeros((), device=self._device()))
        return self.weight * total

    def parameter_groups(self, mask_rate: float = MASK_RATE) -> list[dict[str, Any]]:
        """For an optimiser: {"params", "rate"} of weights and of masks, "rate" a factor of the learning rate.

        Masks have no weight decay; the penalty takes its place.
        """
        masks = {
            id(mask)
            for block in self.blocks
            for mask in (block.dim_mask, block.hidden_mask, block.patch_mask)
            if mask is not None
        }
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        weights = [parameter for parameter in learned if id(parameter) not in masks]
        groups: list[dict[str, Any]] = [{"params": weights, "rate": 1.0}]
        searched = [parameter for parameter in learned if id(parameter) in masks]
        return [*groups, {"params": searched, "rate": mask_rate, "weight_decay": 0.0}] if searched else groups

    def decide(self, budget: SearchBudget) -> list[Kept]:
        """Rank all masks together and multiply what goes by 0; see `search_ranking.rank`.

        Raises:
            ConfigError: the budget is out of reach.
        """
        kept = rank(self.blocks, self.whole, budget)
        for block, stays in zip(self.blocks, kept, strict=True):
            block.decide(*stays)
        return kept

    def slice(self) -> SearchedNetwork:
        """What is left, as a network of its own: smaller matrices, patches that are not computed, no masks.

        It computes what the masked network computes, within rounding.

        Raises:
            PruningError: nothing is decided yet.
        """
        if any(block.stays is None for block in self.blocks):
            raise PruningError(
                "The search has not decided what stays.", "Nothing can be cut.", "Call decide(budget) first."
            )
        own = copy.deepcopy(self)
        session = Session(self.session.grid)
        blocks = {name: block.cut(session) for name, block in zip(own.names, own.blocks, strict=True)}
        return SearchedNetwork(own.network, blocks, session, own.pixels).train(self.training)

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _again(block: SearchBlock, session: Session) -> SearchBlock:
    """A block that was cut, with masks over what is left of it but its patches, which stay decided."""
    masked = SearchBlock(block.parts(), session, block.patches, masks=True)
    masked.patch_mask = None
    return masked


def _find_blocks(
    network: nn.Module, sample: Tensor, patches: bool, grid: Sequence[int] | None, stack: str | None
) -> tuple[list[str], TokenGrid | None]:
    """Names of the blocks in the order in which they run, and where their tokens are if patches are searched."""
    from ..networks import APFormer, LeanFormer  # imported late: networks import this room too

    if isinstance(network, APFormer | LeanFormer):
        where = TokenGrid(0, network.token_stride, network.token_width)
        return [f"layers.{number}" for number in range(len(network.layers))], where if patches else None
    if patches:
        found = find_stack(network, sample, grid, stack)
        return [view.name for view in found.views], found.grid
    names = [name for name, module in network.named_modules() if view_class(module) is not None]
    names = [name for name in names if stack is None or name.rpartition(".")[0] == stack]
    if not names:
        raise PruningError(
            f"{type(network).__name__} has no transformer blocks of a known kind"
            f"{'' if stack is None else f' in {stack!r}'}.",
            "There is nothing to search.",
            "Known are APFormer's, MONAI's TransformerBlock and torch.nn.TransformerEncoderLayer.",
        )
    return names, None


def _base_grid(where: TokenGrid, sample: Tensor) -> tuple[int, ...]:
    """Token grid of the sample."""
    return tuple(-(-length // step) for length, step in zip(sample.shape[2:], where.stride, strict=True))


@torch.no_grad()
def _look(network: nn.Module, sample: Tensor) -> None:
    """One pass, which leaves the mode as it was: blocks then know how many tokens they see."""
    training = network.training
    network.eval()(sample[:1])
    network.train(training)
