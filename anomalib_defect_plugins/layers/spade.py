"""SPADE: a normalisation whose scale and shift a map decides, place by place.

Paper: Semantic image synthesis with spatially-adaptive normalization, CVPR 2019, https://arxiv.org/abs/1903.07291,
eq. 1 to 3. The norm is that of an instance here, and not of a batch: what becomes of an image is its own affair.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Moments(NamedTuple):
    """What features are normalised by, each (B, C, 1, 1), or (B, C, H, W) where it depends on the place."""

    mean: Tensor
    variance: Tensor


class Spade(nn.Module):
    """Normalise features, then scale and shift them as the control map asks for at each place.

    The map goes on beyond its borders as it ends there, so that a constant map scales and shifts all places alike, and
    a map of one pixel does the same at a fraction of the cost.

    Args:
        channels: Channels of the features.
        control_channels: Channels of the control map.
        hidden: Channels between the map and what is made of it; 128 in SPADE's paper.
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
            x: The features.
            control: (B, K, h, w) of any size, which is resized to that of the features; (B, K, 1, 1) holds everywhere.
            moments: What to normalise by; by default the features' own moments.
        """
        hidden = self.shared(at_size(control, x.shape[-2:]))
        if moments is None:
            normalised = self.norm(x)
        else:
            normalised = (x - moments.mean) * (moments.variance + self.norm.eps).rsqrt()
        return normalised * (1 + self.scale(hidden)) + self.shift(hidden)  # SPADE, eq. 1


def moments_of(x: Tensor) -> Moments:
    """Give the moments that an instance norm takes of features (B, C, H, W)."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return Moments(mean, variance)


def blend(one: Moments, other: Moments, share: Tensor) -> Moments:
    """Go from one kind of moments to another, place by place; the share of the other is (B, 1, H, W), in [0, 1]."""
    return Moments(*(first + share * (second - first) for first, second in zip(one, other, strict=True)))


def at_size(control: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a control map (B, K, h, w) to a height and width by means over areas; leave one of a single pixel be."""
    if control.shape[-2:] == (1, 1):
        return control
    return functional.interpolate(control, tuple(size), mode="area")


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate")
