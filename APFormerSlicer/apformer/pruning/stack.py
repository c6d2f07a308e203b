"""Finding a network's stack of transformer blocks, and where on the image its tokens are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import PruningError
from .adapters import BlockView, perceptron_patch, view_class
from .attention import masked_layer

Size = tuple[int, ...]
# Of a view's largest output: far above rounding (fused kernels reorder sums), far below what a wrong formula does.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 5e-2
ONE_SEQUENCE = "Only blocks that see all tokens of an image at once, all the same ones, can be pruned."


class TokenGrid(NamedTuple):
    """Where tokens are: row-major on the grid, after `leading` tokens without a place (a cls token).

    leading: 0 or 1. stride: voxels per token along each axis. width: of a token.
    """

    leading: int
    stride: Size
    width: int

    def on(self, size: Sequence[int], tokens: int) -> Size:
        """Grid of an image of this size with so many tokens.

        Raises:
            PruningError: the tokens do not tile the image as those of the sample did.
        """
        above = tuple(-(-length // step) for length, step in zip(size, self.stride, strict=True))
        below = tuple(length // step for length, step in zip(size, self.stride, strict=True))
        for grid in (above, below):  # networks pad an odd edge, or drop it
            if math.prod(grid) + self.leading == tokens:
                return grid
        raise PruningError(
            f"An image of size {tuple(size)} became {tokens} tokens, which are no grid of {self.stride} voxels each.",
            "It cannot be said where on the image a token is.",
            f"Use image sizes that are multiples of {self.stride}.",
        )


class Stack(NamedTuple):
    """The blocks in the order in which they run, and the grid of the tokens between them."""

    views: list[BlockView]
    grid: TokenGrid


def find_stack(network: nn.Module, sample: Tensor, grid: Sequence[int] | None, name: str | None) -> Stack:
    """The stack of transformer blocks that are called on the same tokens; the network runs once, in evaluation mode.

    Args:
        network: comes back as it was.
        sample: an input, (B, C, *size).
        grid: token grid of the sample; None derives it.
        name: of the module that holds the blocks, if there are several stacks.

    Raises:
        PruningError: there is no such stack, or it cannot be pruned.
    """
    if sample.ndim not in (4, 5):
        raise PruningError(
            f"The sample has shape {tuple(sample.shape)}.",
            "A token grid has two or three axes.",
            "Give a sample image of shape (batch, channels, rows, columns) or (batch, channels, depth, rows, columns).",
        )
    views = _views_in(network, name)
    watch = _Watch(views, sample)
    watch.run(network)
    if not watch.order:
        raise PruningError(
            f"The network did not run any of its {len(views)} transformer blocks on the sample.",
            "There are no tokens to prune.",
            "Give a sample that passes through them.",
        )
    return Stack(watch.order, _token_grid(network, sample, watch, grid))


def _views_in(network: nn.Module, name: str | None) -> list[BlockView]:
    """Views of the blocks of one stack: those that the same module holds."""
    stacks: dict[str, list[tuple[type[BlockView], str, nn.Module]]] = {}
    for path, module in network.named_modules():
        kind = view_class(module)
        if kind is not None:
            stacks.setdefault(path.rpartition(".")[0], []).append((kind, path, module))
    if not stacks:
        raise PruningError(
            f"{type(network).__name__} has no transformer blocks of a known kind.",
            "There is no attention to prune.",
            "Known are MONAI's TransformerBlock (as in ViT and UNETR) and torch.nn.TransformerEncoderLayer.",
        )
    names = ", ".join(repr(stack) for stack in stacks)
    if name is None and len(stacks) > 1:
        raise PruningError(
            f"{type(network).__name__} has several stacks of transformer blocks: {names}.",
            "They may work on different tokens; one stack is pruned.",
            "Name one of them with the argument stack.",
        )
    chosen = next(iter(stacks)) if name is None else name
    if chosen not in stacks:
        raise PruningError(
            f"{type(network).__name__} has no stack of transformer blocks named {chosen!r}.",
            "There is no attention to prune.",
            f"Choose from: {names}.",
        )
    return [kind(path, module) for kind, path, module in stacks[chosen]]


class _Watch:
    """One forward pass, seen from outside: which blocks ran, on how many tokens, and the feature maps before them."""

    def __init__(self, views: Sequence[BlockView], sample: Tensor) -> None:
        self.views, self.sample = views, sample
        self.order: list[BlockView] = []
        self.shape: Size = ()  # (B, N, width) of the tokens
        self.maps: list[Size] = []  # spatial sizes of the feature maps before the first block, in order

    def run(self, network: nn.Module) -> None:
        modes = [(module, module.training) for module in network.modules()]
        blocks = {id(view.block): view for view in self.views}
        with ExitStack() as undo, torch.no_grad():
            for module, mode in modes:
                undo.callback(setattr, module, "training", mode)
                if id(module) in blocks:
                    hook = module.register_forward_hook(self._block_hook(blocks[id(module)]), with_kwargs=True)
                else:
                    hook = module.register_forward_hook(self._see_output)
                undo.callback(hook.remove)
            network.eval()(self.sample)

    def _see_output(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.order and isinstance(output, Tensor) and output.ndim == self.sample.ndim:
            self.maps.append(tuple(output.shape[2:]))

    def _block_hook(self, view: BlockView) -> Any:
        def see(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Tensor) -> None:
            tokens = view.enter(args, kwargs)
            if view in self.order:
                view.refuse("runs more than once per image", "Give every pass its own block.")
            if self.order and tuple(tokens.shape) != self.shape:
                view.refuse(f"works on {tuple(tokens.shape)} tokens, the first block on {self.shape}", ONE_SEQUENCE)
            if tokens.shape[0] != self.sample.shape[0]:
                view.refuse(f"sees {tokens.shape[0]} sequences for {self.sample.shape[0]} images", ONE_SEQUENCE)
            self._compare(view, tokens, output)
            self.order.append(view)
            self.shape = tuple(tokens.shape)

        return see

    @staticmethod
    def _compare(view: BlockView, tokens: Tensor, output: Tensor) -> None:
        """Libraries change: the view must give what the installed block gives."""
        everything = tokens.new_ones(tokens.shape[:2])
        seen = view.leave(masked_layer(view, tokens, everything, everything, None, None).tokens)
        allowed = TOLERANCE.get(tokens.dtype, HALF_TOLERANCE) * float(output.abs().max())
        if seen.shape != output.shape or not float((seen - output).abs().max()) <= allowed:
            view.refuse(
                "does not compute what its class is known to compute", "Report the versions of torch and MONAI."
            )


def _token_grid(network: nn.Module, sample: Tensor, watch: _Watch, given: Sequence[int] | None) -> TokenGrid:
    """The grid that was given, else that of the last feature map before the first block that has as many cells."""
    size, (_, count, width) = tuple(sample.shape[2:]), watch.shape
    patch = perceptron_patch(network)
    candidates = [tuple(given)] if given is not None else watch.maps[::-1]
    if given is None and patch is not None and len(patch) == len(size):
        candidates.append(tuple(length // step for length, step in zip(size, patch, strict=True)))
    for leading in (0, 1):
        for grid in candidates:
            if len(grid) == len(size) and math.prod(grid) + leading == count:
                return TokenGrid(leading, _stride(size, grid), width)
    if given is not None:
        raise PruningError(
            f"The grid {tuple(given)} does not hold the {count} tokens of an image of size {size}.",
            "It cannot be said where on the image a token is.",
            "Give one count per axis; their product is the number of tokens, or that of all but a leading cls token.",
        )
    raise PruningError(
        f"No feature map before the transformer blocks has as many cells as there are tokens, {count}.",
        "It cannot be said where on the image a token is.",
        "Give the token grid of the sample with the argument grid.",
    )


def _stride(size: Size, grid: Size) -> Size:
    """Voxels per token."""
    if any(length % cells for length, cells in zip(size, grid, strict=True)):
        raise PruningError(
            f"The token grid {grid} does not divide the sample's size {size}.",
            "A token would not stand for a whole number of voxels.",
            "Give a sample whose size is a multiple of the patch size.",
        )
    return tuple(length // cells for length, cells in zip(size, grid, strict=True))
