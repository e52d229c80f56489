"""Involution: a convolution whose kernels are generated from each pixel and shared by groups of channels.

Paper: Involution: inverting the inheritance of convolution for visual recognition, CVPR 2021,
https://arxiv.org/abs/2103.06255.
"""

from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError


class Involution(nn.Module):
    """Involution with stride 1 and zero padding.

    Args:
        channels: Number C of input and output channels.
        kernel_size: Side K of the kernels, odd.
        group_channels: Number of channels that share a kernel; C must be a multiple of it.
        reduction: Ratio of C to the hidden channels of the kernel generation.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    def __init__(self, channels: int, kernel_size: int = 7, group_channels: int = 16, reduction: int = 4) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            msg = f"kernel_size is {kernel_size}; it must be odd"
            raise InvalidInputError(msg)
        if channels % group_channels:
            msg = f"channels is {channels}; it must be a multiple of group_channels, {group_channels}"
            raise InvalidInputError(msg)
        self.kernel_size = kernel_size
        self.groups = channels // group_channels
        hidden = max(1, channels // reduction)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)
        )
        self.span = nn.Conv2d(hidden, kernel_size**2 * self.groups, 1)

    def kernels(self, x: Tensor) -> Tensor:
        """Return the kernels of each pixel, row by row: (B, C, H, W) to (B, G, K * K, H, W)."""
        kernels: Tensor = self.span(self.reduce(x)).unflatten(1, (self.groups, self.kernel_size**2))
        return kernels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape. Exported graphs have fixed H and W."""
        batch, channels, height, width = x.shape
        size = self.kernel_size
        patches = functional.unfold(x, size, padding=size // 2)
        patches = patches.reshape(batch, self.groups, channels // self.groups, size**2, height, width)
        return (self.kernels(x)[:, :, None] * patches).sum(3).reshape(x.shape)
