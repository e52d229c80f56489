"""SPADE: normalisation with scale and shift predicted for each pixel from a control map.

Paper: Semantic image synthesis with spatially-adaptive normalization, CVPR 2019, https://arxiv.org/abs/1903.07291,
eq. 1 to 3. Instance norm replaces the paper's batch norm, so that an image does not depend on the rest of its batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Moments(NamedTuple):
    """Moments that features are normalised by, each of shape (B, C, 1, 1), or (B, C, H, W) if they vary by pixel."""

    mean: Tensor
    variance: Tensor


class Spade(nn.Module):
    """Normalise features, then scale and shift each pixel as predicted from the control map.

    The map is padded by replication, so that a constant map scales and shifts all pixels alike, and a map of one pixel
    does the same at a fraction of the cost.

    Args:
        channels: Number of channels of the features.
        control_channels: Number of channels of the control map.
        hidden: Number of hidden channels between the map and scale and shift; 128 in the paper.
    """

    def __init__(self, channels: int, control_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)  # without weights
        self.shared = nn.Sequential(_conv(control_channels, hidden), nn.ReLU(inplace=True))
        self.scale = _conv(hidden, channels)
        self.shift = _conv(hidden, channels)

    def forward(self, x: Tensor, control: Tensor, moments: Moments | None = None) -> Tensor:
        """Map features (B, C, H, W) to the same shape.

        Args:
            x: Features.
            control: Control map, shape (B, K, h, w), resized to the size of the features; (B, K, 1, 1) is a constant.
            moments: Moments to normalise by; by default those of the features.
        """
        hidden = self.shared(at_size(control, x.shape[-2:]))
        if moments is None:
            normalised = self.norm(x)
        else:
            normalised = (x - moments.mean) * (moments.variance + self.norm.eps).rsqrt()
        result: Tensor = normalised * (1 + self.scale(hidden)) + self.shift(hidden)  # eq. 1
        return result


def moments_of(x: Tensor) -> Moments:
    """Return the moments that instance norm computes for features (B, C, H, W)."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return Moments(mean, variance)


def blend(first: Moments, second: Moments, weight: Tensor) -> Moments:
    """Interpolate between two moments for each pixel; ``weight`` (B, 1, H, W), in [0, 1], is that of the second."""
    return Moments(*(one + weight * (other - one) for one, other in zip(first, second, strict=True)))


def at_size(control: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a control map (B, K, h, w) to height and width by area averaging; return a map of one pixel unchanged."""
    if control.shape[-2:] == (1, 1):
        return control
    return functional.interpolate(control, tuple(size), mode="area")


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")
