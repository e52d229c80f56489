"""Convolution, batch norm, (leaky) ReLU: the conv-block of https://arxiv.org/abs/2106.06792, section 2.1."""

from torch import nn


class ConvBlock(nn.Sequential):
    """Conv-block that keeps the image size, with reflection padding so that borders look like the texture.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        slope: Negative slope of the LeakyReLU; 0 for a ReLU.
        kernel_size: Side of the kernel, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, slope: float = 0.2, kernel_size: int = 3) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                padding=kernel_size // 2,
                padding_mode="reflect" if kernel_size > 1 else "zeros",
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(slope),
        )
