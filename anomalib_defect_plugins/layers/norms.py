"""Normalisation layers by name, for models whose papers do not specify one."""

from collections.abc import Callable

from torch import nn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    # Groups of eight channels.
    "group": lambda channels: nn.GroupNorm(max(1, channels // 8), channels),
    # Equivalent to batch norm in training with a batch of one image.
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": nn.BatchNorm2d,
}
"""Constructors that take the number of channels."""
