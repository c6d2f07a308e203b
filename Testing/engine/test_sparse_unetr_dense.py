"""Token-sparse UNETR with nothing dropped, against MONAI's UNETR."""

from __future__ import annotations

import pytest
import torch
from apformer.networks import SparseUnetr
from apformer.pruning import count_parameters
from monai.networks.nets import UNETR
from torch import nn


def as_in_monai(network: SparseUnetr, unetr: UNETR) -> None:
    """Give the dense network the weights of MONAI's."""
    encoder, decoder = unetr.vit, network.decoder

    def res_block(own: nn.Module, theirs: nn.Module) -> None:
        own.body[0].weight.copy_(theirs.conv1.conv.weight)
        own.body[3].weight.copy_(theirs.conv2.conv.weight)
        if isinstance(own.shortcut, nn.Sequential):
            own.shortcut[0].weight.copy_(theirs.conv3.conv.weight)

    def projection(own: nn.Sequential, theirs: nn.Module) -> None:
        own[0].weight.copy_(theirs.transp_conv_init.conv.weight)
        for place, (doubling, block) in enumerate(theirs.blocks):
            own[1 + 2 * place].weight.copy_(doubling.conv.weight)
            res_block(own[2 + 2 * place], block)

    def up_block(own: nn.Module, theirs: nn.Module) -> None:
        own.finer.weight.copy_(theirs.transp_conv.conv.weight)
        res_block(own.body, theirs.conv_block)

    with torch.no_grad():
        network.embedding.load_state_dict(encoder.patch_embedding.patch_embeddings.state_dict())
        network.positions.copy_(encoder.patch_embedding.position_embeddings)
        for own, theirs in zip(network.blocks, encoder.blocks, strict=True):
            own.norm1.load_state_dict(theirs.norm1.state_dict())
            own.norm2.load_state_dict(theirs.norm2.state_dict())
            own.self_attn.in_proj_weight.copy_(theirs.attn.qkv.weight)
            own.self_attn.in_proj_bias.copy_(theirs.attn.qkv.bias)
            own.self_attn.out_proj.load_state_dict(theirs.attn.out_proj.state_dict())
            own.linear1.load_state_dict(theirs.mlp.linear1.state_dict())
            own.linear2.load_state_dict(theirs.mlp.linear2.state_dict())
        network.norm.load_state_dict(encoder.norm.state_dict())
        res_block(decoder.skip1, unetr.encoder1.layer)
        for own, theirs in ((decoder.skip2, unetr.encoder2), (decoder.skip3, unetr.encoder3)):
            projection(own, theirs)
        projection(decoder.skip4, unetr.encoder4)
        for number, own in enumerate((decoder.up1, decoder.up2, decoder.up3, decoder.up4), start=2):
            up_block(own, getattr(unetr, f"decoder{number}"))
        decoder.head.load_state_dict(unetr.out.conv.conv.state_dict())
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5  # MONAI's


@pytest.mark.parametrize("dims", [2, 3])
def test_with_nothing_dropped_it_computes_what_monais_unetr_computes(dims: int):
    torch.manual_seed(0)
    size, widths = (64, 48, 32)[:dims], {"hidden_size": 12, "mlp_dim": 16, "num_heads": 3, "feature_size": 2}
    unetr = UNETR(2, 3, size, spatial_dims=dims, qkv_bias=True, **widths).eval()
    network = SparseUnetr(
        spatial_dims=dims, in_channels=2, out_channels=3, image_size=size, patch_size=16, prune_ratio=0.0,
        cls_token=False, drop_path=0.0, **widths,
    ).eval()  # fmt: skip
    as_in_monai(network, unetr)
    image = torch.rand(2, 2, *size)
    with torch.no_grad():
        torch.testing.assert_close(network(image), unetr(image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.train()(image), unetr(image), rtol=1e-4, atol=1e-5)
    unused = 12 * 2 * 12  # MONAI's blocks carry the norm of a cross-attention that UNETR does not have
    assert count_parameters(network) == count_parameters(unetr) - unused


def test_at_full_size_the_dense_form_has_the_parameters_of_monais_unetr():
    with torch.device("meta"):
        unetr = UNETR(1, 14, (96, 96, 96), qkv_bias=True)
        dense = SparseUnetr(prune_ratio=0.0, patch_size=16, cls_token=False)
    assert count_parameters(dense) == count_parameters(unetr) - 12 * 2 * 768
