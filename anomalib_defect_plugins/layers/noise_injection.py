"""Adaptive noise injection, https://arxiv.org/abs/2103.15158, section 3.1: noise with a learned strength."""

import torch
from torch import Tensor, nn


class NoiseInjection(nn.Module):
    """Add Gaussian noise, independent for each channel and pixel, times one learned strength.

    The strength is initialised to 0, so the block starts as the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Map (B, C, H, W) to the same shape.

        Args:
            x: Features.
            rng: Source of the noise, on the device of the features; if ``None``, no noise is added.
        """
        if rng is None:
            return x
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        return x + self.strength.to(x.dtype) * noise
