"""Transposed convolutions to few channels, exported as convolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class NarrowTransposed(nn.ConvTranspose2d):
    """Transposed convolution to few channels, whose exported graph is a convolution with the same output.

    OpenVINO computes transposed convolutions to one channel several times slower than convolutions. One of stride 2 is
    a convolution to four channels, one for each pixel of 2x2 (https://arxiv.org/abs/1609.05158).

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
        if self.stride[0] == 1:
            return functional.conv2d(input, kernel, self.bias, padding=self.kernel_size[0] - 1 - int(self.padding[0]))
        # Even and odd outputs depend on every second row and column of the kernel.
        phases = [
            functional.pad(kernel[:, :, down::2, across::2], (across, 1 - across, down, 1 - down))
            for down in range(2)
            for across in range(2)
        ]
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        padding = (3 - int(self.padding[0])) // 2
        return functional.pixel_shuffle(
            functional.conv2d(input, torch.stack(phases, 1).flatten(0, 1), bias, 1, padding), 2
        )
