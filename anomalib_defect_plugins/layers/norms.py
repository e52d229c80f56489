"""Normalisation layers by name, for models whose papers do not specify one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group norm, exported as layer norm where there is one group, and otherwise as means over channels.

    The reshape to groups of the usual export makes OpenVINO change the layout of the features, from channels last and
    back, which takes longer than the norm itself.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch
        """Normalise features (B, C, H, W)."""
        if not torch.compiler.is_compiling():
            return super().forward(input)
        if self.num_groups == 1 and torch.onnx.is_in_onnx_export():
            # With all channels in one group, it is layer norm over them and the positions, which OpenVINO reads less
            # often than the means below.
            affine = (self.weight[:, None, None], self.bias[:, None, None])
            return torch.onnx.ops.symbolic(
                "LayerNormalization",
                (input, *affine),
                {"axis": 1, "epsilon": self.eps},
                dtype=input.dtype,
                shape=input.shape,
                version=17,
            )
        mean = self._mean_of_groups(input)
        variance = self._mean_of_groups((input - mean).square())
        scale = self.weight[:, None, None] / (variance + self.eps).sqrt()
        # Not the scaled difference, which OpenVINO would keep in memory.
        return input * scale + (self.bias[:, None, None] - mean * scale)

    def _mean_of_groups(self, values: Tensor) -> Tensor:
        """Return the mean of the group of each channel, shape (B, C, 1, 1)."""
        means = values.mean((2, 3)).reshape(values.shape[0], self.num_groups, -1)
        of_groups: Tensor = means.mean(2, keepdim=True).expand_as(means).reshape(values.shape[0], -1, 1, 1)
        return of_groups


NORMS: dict[str, Callable[[int], nn.Module]] = {
    # Groups of eight channels.
    "group": lambda channels: GroupNorm(max(1, channels // 8), channels),
    # Equivalent to batch norm in training with a batch of one image.
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": nn.BatchNorm2d,
}
"""Constructors that take the number of channels."""
