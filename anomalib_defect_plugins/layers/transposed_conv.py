"""Transposed convolutions to few channels, exported as convolutions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

LANES = 16
"""Channels that a processor computes at once, at most."""


class NarrowTransposed(nn.ConvTranspose2d):
    """Transposed convolution to few channels, whose exported graph is a convolution with the same output.

    OpenVINO computes transposed convolutions to one channel several times slower than convolutions, and convolutions to
    one channel as fast as to sixteen. So a block of 2x2 or 4x4 pixels of the output is computed as channels
    (https://arxiv.org/abs/1609.05158).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Side of the kernel: 4 with stride 2, odd with stride 1.
        stride: 1 or 2.
        padding: Padding as in torch; 1 or 3 with stride 2.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002 - as in torch
        """Map (B, in_channels, H, W) to (B, out_channels, stride * H, stride * W) with the usual padding."""
        if output_size is not None or not torch.compiler.is_compiling():
            return super().forward(input, output_size)
        kernel = self.weight.transpose(0, 1).flip(2, 3)
        padding = self.kernel_size[0] - 1 - int(self.padding[0])
        if self.stride[0] == 1:
            side = self._block_side(input.shape[-2:], padding)
            return self._by_blocks(input, _shifted(kernel, side), side, side, padding)
        # Even and odd outputs depend on every second row and column of the kernel.
        phases = [
            functional.pad(kernel[:, :, down::2, across::2], (across, 1 - across, down, 1 - down))
            for down in range(2)
            for across in range(2)
        ]
        return self._by_blocks(input, phases, 2, 1, padding // 2)

    def _block_side(self, size: Sequence[int], padding: int) -> int:
        """Return the side of blocks that divide an output, 1 if none do or the graph is for any size."""
        if not all(isinstance(side, int) for side in size):
            return 1
        height, width = (side + 2 * padding - self.kernel_size[0] + 1 for side in size)
        fitting = (side for side in (4, 2) if self.out_channels * side**2 <= LANES)
        return next((side for side in fitting if height % side == width % side == 0), 1)

    def _by_blocks(self, image: Tensor, kernels: Sequence[Tensor], side: int, stride: int, padding: int) -> Tensor:
        """Compute blocks of ``side`` x ``side`` pixels, whose kernels have shape (out_channels, in_channels, h, w)."""
        bias = None if self.bias is None else self.bias.repeat_interleave(side**2)
        blocks = functional.conv2d(image, torch.stack(list(kernels), 1).flatten(0, 1), bias, stride, padding)
        return blocks if side == 1 else functional.pixel_shuffle(blocks, side)


def _shifted(kernel: Tensor, side: int) -> list[Tensor]:
    """Return a kernel at each place of a block of pixels, padded to what all places read."""
    rest = range(side)
    return [
        functional.pad(kernel, (across, side - 1 - across, down, side - 1 - down)) for down in rest for across in rest
    ]
