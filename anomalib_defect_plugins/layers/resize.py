"""Bicubic resizing with antialiasing as two matrix products.

Resizing is linear and separable: ``rows @ image @ columns``. Written so, it is the same to the last digits wherever
a graph is exported to, which the resize operators of ONNX and OpenVINO are not (they leave antialiasing out, or do it
otherwise). The weights are those of ``torch.nn.functional.interpolate(..., mode="bicubic", antialias=True)``: Keys'
cubic convolution with a = -0.5, stretched by the scale when an image shrinks, and normalised at the borders.
"""

import torch
from torch import Tensor, nn


def resize_matrix(old: int, new: int) -> Tensor:
    """Give the weights that resize a column of ``old`` pixels to ``new``.

    Made of plain tensor operations, so that it can be traced with ``old`` unknown.

    Args:
        old: Pixels in.
        new: Pixels out.

    Returns:
        ``(new, old)``, each row sums to 1.
    """
    scale = torch.ones(old).sum() / new  # old as a tensor that tracing does not fix
    centre = (torch.arange(new, dtype=torch.float32) + 0.5) * scale
    distance = (torch.arange(old, dtype=torch.float32) + 0.5 - centre[:, None]).abs() / scale.clamp(min=1.0)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    return weights / weights.sum(dim=1, keepdim=True)


class FixedResize(nn.Module):
    """Resize images from one known size to another; the weights are constants of the graph.

    Args:
        old: Height and width in.
        new: Height and width out.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        super().__init__()
        self.identity = tuple(old) == tuple(new)
        # Not persistent: they follow from the sizes, which are hyperparameters.
        self.register_buffer("rows", resize_matrix(old[0], new[0]), persistent=False)
        self.register_buffer("columns", resize_matrix(old[1], new[1]).T.contiguous(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Resize ``(B, C, old_h, old_w)`` to ``(B, C, new_h, new_w)``."""
        return image if self.identity else self.rows @ image @ self.columns


class Resize(nn.Module):
    """Resize images of any size to one size; the weights are computed from the image's size.

    Args:
        size: Height and width out.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, image: Tensor) -> Tensor:
        """Resize ``(B, C, H, W)`` to ``(B, C, *size)``."""
        rows = resize_matrix(image.shape[-2], self.size[0]).to(image)
        columns = resize_matrix(image.shape[-1], self.size[1]).to(image)
        return rows @ image @ columns.T
