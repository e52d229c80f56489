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
        if self.size == 3:
            return _median_of_nine(shifts)
        return torch.cat(shifts, 1).topk(self.size**2 // 2 + 1, dim=1).values[:, -1:]


def _median_of_nine(shifts: list[Tensor]) -> Tensor:
    """Return the median of nine tensors: sorted columns, then the median of a diagonal of sorted rows.

    Comparisons are many times faster than a sort in OpenVINO (Smith, Implementing median filters in XC4000E FPGAs).
    """
    columns = [_sorted(*shifts[start : start + 3]) for start in (0, 3, 6)]
    lowest, middle, highest = (list(rows) for rows in zip(*columns, strict=True))
    diagonal = (
        torch.maximum(torch.maximum(lowest[0], lowest[1]), lowest[2]),
        _sorted(*middle)[1],
        torch.minimum(torch.minimum(highest[0], highest[1]), highest[2]),
    )
    return _sorted(*diagonal)[1]


def _sorted(one: Tensor, two: Tensor, three: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort three tensors, value by value."""
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    middle, highest = torch.minimum(high, three), torch.maximum(high, three)
    return torch.minimum(low, middle), torch.maximum(low, middle), highest
