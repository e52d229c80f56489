"""Adaptive noise injection of Defect-GAN, section 3.1: noise on features, whose strength is learned.

Paper: https://arxiv.org/abs/2103.15158.
"""

import torch
from torch import Tensor, nn


class NoiseInjection(nn.Module):
    """Add Gaussian noise to features, drawn for each channel and place by itself, times one learned number.

    The number is 0 at first, so the block starts as the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Map (B, C, H, W) to the same shape.

        Args:
            x: The features.
            rng: Source of the noise, on the device of the features; without one there is no noise.
        """
        if rng is None:
            return x
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        return x + self.strength.to(x.dtype) * noise
