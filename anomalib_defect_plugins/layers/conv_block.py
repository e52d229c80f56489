"""Convolution, batch norm, (leaky) ReLU: the conv-block of HTP-GAN, section 2.1."""

from torch import nn


class ConvBlock(nn.Sequential):
    """A conv-block that keeps the image size; borders are reflected, so that they look like the texture.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        slope: Slope of the LeakyReLU below zero; 0 makes it a ReLU.
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
