"""Median filter built from operators that ONNX and OpenVINO support."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class MedianFilter(nn.Module):
    """Median of the square around each pixel, with reflection padding.

    Args:
        size: Side of the square in pixels, odd; 1 is the identity.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """Filter images (B, 1, H, W); H and W must be greater than half of ``size``."""
        if self.size == 1:
            return image
        half = self.size // 2
        padded = functional.pad(image, (half, half, half, half), mode="reflect")
        height, width = image.shape[-2:]
        shifts = [
            padded[..., top : top + height, left : left + width]
            for top in range(self.size)
            for left in range(self.size)
        ]
        return torch.cat(shifts, 1).topk(self.size**2 // 2 + 1, dim=1).values[:, -1:]
