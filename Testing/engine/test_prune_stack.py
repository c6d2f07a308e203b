"""Finding what can be pruned in a network, and refusing what cannot, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from apformer.errors import PruningError
from apformer.pruning.plugin import prune_attention
from monai.networks.blocks import SABlock, TransformerBlock
from monai.networks.nets import ViT
from prune_samples import EncoderSegmenter, a_network, a_vit, an_image, assert_close, pruned_at, with_auxiliaries
from torch import Tensor, nn

# What is found


def test_a_network_that_takes_other_image_sizes_takes_them_pruned_too():
    pruned = prune_attention(a_network("encoder, post-norm"), sample=torch.rand(1, 1, 24, 16))
    _, auxiliaries = with_auxiliaries(pruned, torch.rand(2, 1, 32, 22), "hard")  # the stem drops two columns
    assert auxiliaries.kept.shape == (2, 8, 5)
    assert auxiliaries.token_stride == (4, 4)


def test_one_of_several_stacks_is_pruned_if_it_is_named():
    class TwoViews(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = EncoderSegmenter(), EncoderSegmenter(layers=2)

        def forward(self, image: Tensor) -> Tensor:
            return self.left(image) + self.right(image)

    network, image = TwoViews().eval(), an_image("", 2)
    with pytest.raises(PruningError, match=r"left\.encoder\.layers.*right\.encoder\.layers.*argument stack"):
        prune_attention(network, sample=image)
    with pytest.raises(PruningError, match=r"named 'middle'"):
        prune_attention(network, sample=image, stack="middle")
    pruned = prune_attention(network, sample=image, stack="right.encoder.layers")
    assert len(pruned.costs) == 2
    assert_close(with_auxiliaries(pruned, image, "soft")[0], with_auxiliaries(pruned, image, "hard")[0])


# What is refused


def test_a_network_without_attention_is_refused():
    with pytest.raises(PruningError, match="Sequential has no transformer blocks") as refusal:
        prune_attention(nn.Sequential(nn.Conv2d(1, 2, 3)), sample=torch.rand(1, 1, 8, 8))
    assert "TransformerEncoderLayer" in refusal.value.remedy


class Swish(nn.TransformerEncoderLayer):
    """A subclass that computes something else."""

    def forward(self, src: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return src * super().forward(src, *args, **kwargs).sigmoid()


class DoubleFeedForward(nn.TransformerEncoderLayer):
    """A subclass that changes a part which forward calls."""

    def _ff_block(self, x: Tensor) -> Tensor:
        return 2 * super()._ff_block(x)


def vit_with(**options: Any) -> ViT:
    """The second block made with these options of TransformerBlock."""
    network = a_vit()
    network.blocks[1] = TransformerBlock(12, 16, 3, **options)
    return network


def vit_with_attention(**options: Any) -> ViT:
    network = a_vit()
    network.blocks[1].attn = SABlock(12, 3, **options)
    return network


def encoder_with_attention(**options: Any) -> EncoderSegmenter:
    network = EncoderSegmenter()
    network.encoder.layers[1].self_attn = nn.MultiheadAttention(16, 2, batch_first=True, **options)
    return network


def encoder_of(kind: type[nn.TransformerEncoderLayer]) -> EncoderSegmenter:
    network = EncoderSegmenter()
    network.encoder.layers[1] = kind(16, 2, 24, batch_first=True)
    return network


def hooked() -> EncoderSegmenter:
    network = EncoderSegmenter()
    network.encoder.layers[1].self_attn.out_proj.register_forward_hook(lambda *_: None)
    return network


def shared() -> EncoderSegmenter:
    network = EncoderSegmenter()
    network.encoder.layers[2] = network.encoder.layers[1]
    return network


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "causal": (lambda: vit_with(causal=True, sequence_length=24), r"blocks\.1.*causal attention"),
    "cross-attention": (lambda: vit_with(with_cross_attention=True), "cross-attention"),
    "saved attention": (lambda: vit_with(save_attn=True), "save_attn"),
    "random flash": (lambda: vit_with(use_flash_attention=True, dropout_rate=0.1), "use_flash_attention.*dropout"),
    "relative": (lambda: vit_with_attention(rel_pos_embedding="decomposed", input_size=(6, 4)), "relative positional"),
    "attention dtype": (lambda: vit_with_attention(attention_dtype=torch.float32), "attention_dtype"),
    "extra keys": (lambda: encoder_with_attention(add_bias_kv=True), r"encoder\.layers\.1.*add_bias_kv"),
    "zero key": (lambda: encoder_with_attention(add_zero_attn=True), "add_zero_attn"),
    "activation": (lambda: EncoderSegmenter(activation=nn.functional.silu), "other than ReLU and GELU"),
    "subclass": (lambda: encoder_of(Swish), "runs Swish instead of TransformerEncoderLayer"),
    "changed part": (lambda: encoder_of(DoubleFeedForward), "does not compute what its class is known"),
    "hook": (hooked, "forward hooks in its attention"),
    "shared block": (shared, "runs more than once"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_block_that_pruning_would_change_is_refused_with_its_name_and_left_alone(kind: str):
    make, reason = REFUSED[kind]
    torch.manual_seed(0)
    network = make()
    with pytest.raises(PruningError, match=reason):
        prune_attention(network, sample=an_image("", 2))
    assert not any("forward" in vars(module) for module in network.modules())
    assert not any(len(module._forward_hooks) > (kind == "hook") for module in network.modules())


def test_flash_attention_without_dropout_is_fine():
    network, image = vit_with(use_flash_attention=True).eval(), an_image("", 2)
    pruned = prune_attention(network, sample=image)
    assert_close(with_auxiliaries(pruned, image, "soft")[0], with_auxiliaries(pruned, image, "hard")[0])


def test_a_mask_is_refused_when_it_is_given():
    pruned, image = pruned_at("encoder, post-norm", [0.5, 0.5])
    pruned.gating = "hard"
    network = pruned.network
    network.forward = lambda image: EncoderSegmenter.forward(network, image, torch.zeros(2, 24, dtype=torch.bool))
    with pytest.raises(PruningError, match="src_key_padding_mask"):
        pruned(image)


def test_blocks_that_see_windows_instead_of_the_image_are_refused():
    class Windowed(EncoderSegmenter):
        def forward(self, image: Tensor) -> Tensor:
            tokens = self.stem(image).flatten(2).transpose(1, 2)
            return self.encoder(tokens.reshape(2 * len(image), -1, 16))

    with pytest.raises(PruningError, match="4 sequences for 2 images"):
        prune_attention(Windowed(), sample=an_image("", 2))


def test_blocks_between_which_tokens_are_merged_are_refused():
    class Merging(EncoderSegmenter):
        def forward(self, image: Tensor) -> Tensor:
            tokens = self.encoder.layers[0](self.stem(image).flatten(2).transpose(1, 2))
            return self.encoder.layers[1](tokens[:, ::2])

    with pytest.raises(PruningError, match=r"layers\.1.*\(2, 12, 16\) tokens, the first block on \(2, 24, 16\)"):
        prune_attention(Merging(), sample=an_image("", 2))


def test_a_network_that_passes_its_blocks_by_is_refused_by_the_sample_and_by_the_losses():
    class Optional(EncoderSegmenter):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) if image.amax() > 0 else self.head(self.stem(image))

    with pytest.raises(PruningError, match="any of its 3 transformer blocks"):
        prune_attention(Optional(), sample=torch.zeros(1, 1, 24, 16))
    pruned = prune_attention(Optional(), sample=torch.ones(1, 1, 24, 16))
    assert pruned(torch.zeros(1, 1, 24, 16)).shape == (1, 2, 24, 16)
    with pytest.raises(PruningError, match="none of its pruned transformer blocks"):
        pruned(torch.zeros(1, 1, 24, 16), auxiliaries=True)


class LinearPatches(nn.Module):
    """No feature map to derive the grid from."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(16, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2)

    def forward(self, image: Tensor) -> Tensor:
        patches = image.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).flatten(1, 3)
        return self.encoder(self.embedding(patches))


def test_a_grid_that_cannot_be_derived_is_asked_for():
    network, image = LinearPatches(), an_image("", 2)
    with pytest.raises(PruningError, match=r"as many cells as there are tokens, 24.*argument grid"):
        prune_attention(network, sample=image)
    with pytest.raises(PruningError, match=r"grid \(6, 6\) does not hold the 24 tokens"):
        prune_attention(network, sample=image, grid=(6, 6))
    pruned = prune_attention(network, sample=image, grid=(6, 4))
    assert pruned.grid.stride == (4, 4)
    with pytest.raises(PruningError, match=r"grid \(4, 6\) does not divide"):
        prune_attention(pruned.restore(), sample=image, grid=(4, 6))


def test_images_that_do_not_give_a_grid_are_refused():
    pruned = prune_attention(LinearPatches(), sample=an_image("", 2), grid=(6, 4))
    with pytest.raises(PruningError, match=r"size \(26, 19\) became 25 tokens"):
        pruned.grid.on((26, 19), 25)
    with pytest.raises(PruningError, match=r"shape \(1, 24, 16\)"):
        prune_attention(LinearPatches(), sample=torch.rand(1, 24, 16))
