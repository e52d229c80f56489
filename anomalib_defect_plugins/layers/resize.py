"""Resizing as two matrix products: bicubic with antialiasing, and the bilinear enlargement of maps.

Resizing is linear and separable: ``rows @ image @ columns``. Exported graphs then resize exactly as torch does, unlike
the resize operators of ONNX and OpenVINO, which omit antialiasing or implement it differently. The weights are those of
``torch.nn.functional.interpolate(..., mode="bicubic", antialias=True)``: Keys' cubic convolution with a = -0.5,
stretched by the scale when an image shrinks, and normalised at the borders.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def resize_matrix(old: int, new: int) -> Tensor:
    """Return the weights that resize a column of ``old`` pixels to ``new``.

    Consists of tensor operations, so that it can be traced with ``old`` unknown.

    Args:
        old: Number of input pixels.
        new: Number of output pixels.

    Returns:
        Weights, shape (new, old); each row sums to 1.
    """
    scale = torch.ones(old).sum() / new  # a sum, so that tracing does not record ``old`` as a constant
    centre = (torch.arange(new, dtype=torch.float32) + 0.5) * scale
    distance = (torch.arange(old, dtype=torch.float32) + 0.5 - centre[:, None]).abs() / scale.clamp(min=1.0)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    return weights / weights.sum(dim=1, keepdim=True)


def bilinear_matrix(old: int, new: int) -> Tensor:
    """Return the weights that interpolate a column of ``old`` pixels linearly to ``new``, shape (new, old)."""
    scale = torch.ones(old).sum() / new
    position = ((torch.arange(new, dtype=torch.float32) + 0.5) * scale - 0.5).clamp(min=0)
    pixel = torch.arange(old, dtype=torch.float32)
    return (1 - (position.minimum(pixel[-1])[:, None] - pixel).abs()).clamp(min=0)


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate maps bilinearly, exported as matrix products.

    OpenVINO interpolates a map of one channel several times slower than it multiplies matrices of up to a thousand
    rows.

    Args:
        maps: Maps, shape (B, 1, h, w).
        size: Height H and width W.

    Returns:
        Maps, shape (B, 1, H, W).
    """
    if not torch.compiler.is_compiling():
        return functional.interpolate(maps, tuple(size), mode="bilinear")
    rows, columns = (bilinear_matrix(*sizes).to(maps) for sizes in zip(maps.shape[-2:], size, strict=True))
    return rows @ maps @ columns.T


class FixedResize(nn.Module):
    """Resize images from one known size to another, with the weights as constants of the graph.

    Args:
        old: Input height and width.
        new: Output height and width.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        super().__init__()
        self.identity = tuple(old) == tuple(new)
        # Not persistent, as they follow from the sizes.
        self.register_buffer("rows", resize_matrix(old[0], new[0]), persistent=False)
        self.register_buffer("columns", resize_matrix(old[1], new[1]).T.contiguous(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Resize images (B, C, old_h, old_w) to (B, C, new_h, new_w)."""
        return image if self.identity else self.rows @ image @ self.columns


class Resize(nn.Module):
    """Resize images of any size to one size, with weights computed from the size of the images.

    Args:
        size: Output height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, image: Tensor) -> Tensor:
        """Resize images (B, C, H, W) to (B, C, *size)."""
        # In graphs of images of any size, height and width are symbols that must not be compared.
        if all(isinstance(side, int) for side in image.shape[-2:]) and tuple(image.shape[-2:]) == self.size:
            return image
        rows = resize_matrix(image.shape[-2], self.size[0]).to(image)
        columns = resize_matrix(image.shape[-1], self.size[1]).to(image)
        return rows @ image @ columns.T
