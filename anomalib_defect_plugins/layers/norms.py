"""Layers that normalise, by name: what a paper that names none leaves open."""

from collections.abc import Callable

from torch import nn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    # Groups of eight channels of each image.
    "group": lambda channels: nn.GroupNorm(max(1, channels // 8), channels),
    # Each channel of each image: what batch statistics of a batch of one image are.
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": nn.BatchNorm2d,
}
"""Makes a layer from the number of channels."""
