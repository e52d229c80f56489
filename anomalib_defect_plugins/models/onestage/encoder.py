"""Encoders of the one-stage segmenter: the segmentation network of SegDec-Net, or a pretrained timm model.

SegDec-Net: Tabernik et al., https://doi.org/10.1007/s10845-019-01476-x.
"""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.layers import NORMS, Encoder, maps_at


class Width(NamedTuple):
    """Channels of the encoder at full, half, quarter and eighth size, and kernel size of its last layer."""

    full: int
    half: int
    quarter: int
    eighth: int
    last_kernel: int


WIDTHS = {"paper": Width(32, 64, 64, 1024, 15), "small": Width(8, 16, 16, 64, 7)}
"""The paper's network, and one for a CPU: at half the image size, its 7x7 kernel covers what 15x15 covers at full."""


def block(in_channels: int, out_channels: int, kernel_size: int, norm: str) -> nn.Sequential:
    """Convolution, norm and ReLU at constant size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        NORMS[norm](out_channels),
        nn.ReLU(inplace=True),
    )


def blocks(in_channels: int, out_channels: int, count: int, norm: str, kernel_size: int = 5) -> nn.Sequential:
    """``count`` blocks of square convolutions."""
    return nn.Sequential(
        *(block(out_channels if n else in_channels, out_channels, kernel_size, norm) for n in range(count))
    )


class SegDecEncoder(nn.ModuleList):
    """Segmentation network of SegDec-Net, for the first channel of images.

    Args:
        width: ``paper`` or ``small``, see ``WIDTHS``.
        norm: Name of the norm, see ``NORMS``.

    Attributes:
        channels: Channels of the feature maps, fine to coarse.
        strides: Strides of the feature maps, fine to coarse.
    """

    strides = (1, 2, 4, 8)

    def __init__(self, width: str, norm: str) -> None:
        full, half, quarter, eighth, last_kernel = WIDTHS[width]
        levels = [blocks(1, full, 2, norm), blocks(full, half, 3, norm), blocks(half, quarter, 4, norm)]
        super().__init__([*levels, block(quarter, eighth, last_kernel, norm)])
        self.channels = (full, half, quarter, eighth)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps, fine to coarse, of images (B, C, H, W), float in [0, 1]."""
        first, *deeper = self
        maps = [first(image[:, :1] - 0.5)]
        for level in deeper:
            maps.append(level(functional.max_pool2d(maps[-1], 2)))
        return maps


class TimmEncoder(Encoder):
    """Feature maps of a timm model at four strides.

    Args:
        backbone: Name of a convolutional timm model.
        pre_trained: Whether to load timm's weights, or a file with them.

    Attributes:
        channels: Channels of the feature maps, fine to coarse.
        strides: Strides of the feature maps, fine to coarse.

    Raises:
        InvalidInputError: If timm has no such model, or it has no feature map at one of the strides.
        MissingDataError: If the weights do not exist or cannot be downloaded.
    """

    strides = (2, 4, 8, 16)

    def __init__(self, backbone: str, pre_trained: bool | str | Path) -> None:
        super().__init__(backbone, pre_trained, maps_at(backbone, self.strides))
        self.channels = tuple(feature_map.channels for feature_map in self.maps)
