"""MONAI's DynUNet, the convolutional network of nnU-Net: the plain network to compare with, trained alike."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import DynUNet
from torch import Tensor, nn

from ..networks.parts import crop_to, pad_to_cells
from ..pruning.auxiliaries import Auxiliaries

PEER = "monai-dynunet"
FILTERS = {2: (16, 32, 64, 128, 256), 3: (16, 32, 64, 128)}  # half of nnU-Net's: a processor trains it


def dynunet(spatial_dims: int, in_channels: int, out_channels: int) -> DynUNet:
    """Two 3 x 3 (x 3) convolutions a level, instance norm, leaky ReLU; each level but the first halves the size."""
    filters = FILTERS[spatial_dims]
    strides = [1, *[2] * (len(filters) - 1)]
    kernels = [3] * len(filters)
    return DynUNet(spatial_dims, in_channels, out_channels, kernels, strides, strides[1:], filters=list(filters))


class Peer(nn.Module):
    """It, as the program's own networks are: any image size, and auxiliaries that say that nothing is pruned.

    Args:
        image_size: as other networks have it; it does not matter here.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, image_size: Sequence[int] = ()) -> None:
        super().__init__()
        self.network = dynunet(spatial_dims, in_channels, out_channels)
        self.cell = (2 ** (len(FILTERS[spatial_dims]) - 1),) * spatial_dims

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """(B, in_channels, *size) -> logits (B, out_channels, *size); with `auxiliaries` (logits, Auxiliaries)."""
        logits: Tensor = crop_to(self.network(pad_to_cells(image, self.cell)), image.shape[2:])
        return (logits, Auxiliaries.unpruned(image)) if auxiliaries else logits
