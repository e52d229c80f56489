"""Patches of other images, blended in by Poisson's equation so that their borders leave no visible edge.

Pérez, Gangnet, Blake: Poisson Image Editing. SIGGRAPH 2003, section 2 (seamless cloning). Used for training defects by
Schlüter et al.: Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization. ECCV 2022.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_range
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.geometry import Pair, image_size, log_uniform, rectangle_size, two_positions


class PoissonDefects(DefectGenerator):
    """Blend a rectangle of another image of the batch into each image; of the same image if the batch has only one.

    Args:
        area: Minimum and maximum area of the rectangle, as fractions of the image's, at most 0.3; drawn log-uniformly.
        aspect: Minimum and maximum width divided by height, drawn log-uniformly.
        scale: Minimum and maximum factor by which the patch is enlarged, drawn log-uniformly.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    name: ClassVar[str] = "poisson"

    def __init__(
        self,
        area: tuple[float, float] = (0.004, 0.12),
        aspect: tuple[float, float] = (0.3, 3.3),
        scale: tuple[float, float] = (0.7, 1.4),
    ) -> None:
        check_range("area of PoissonDefects", area, 1e-4, 0.3)
        check_range("aspect of PoissonDefects", aspect, 0.05, 20)
        check_range("scale of PoissonDefects", scale, 0.25, 4)
        self.area = area
        self.aspect = aspect
        self.scale = scale

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend a patch into each image of (B, C, H, W)."""
        geometry, size = numpy_rng(rng), image_size(images)
        result, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        others = images.roll(int(geometry.integers(1, max(2, len(images)))), dims=0)  # another image for each
        for row, (image, other) in enumerate(zip(images, others, strict=True)):
            area, aspect = log_uniform(geometry, self.area), log_uniform(geometry, self.aspect)
            height, width = rectangle_size(size, area, aspect, margin=1)
            (y, x), (top, left) = two_positions(size, (height + 2, width + 2), geometry)
            target = image[:, top : top + height + 2, left : left + width + 2]
            patch = crop_and_scale(other, (y, x), image_size(target), log_uniform(geometry, self.scale))
            result[row, :, top + 1 : top + 1 + height, left + 1 : left + 1 + width] = blend(patch, target)
            mask[row, :, top + 1 : top + 1 + height, left + 1 : left + 1 + width] = True
        return result, mask


def crop_and_scale(image: Tensor, corner: Pair, extent: Pair, scale: float) -> Tensor:
    """Cut a patch out of an image and resize it.

    Args:
        image: Image, shape (C, H, W), float.
        corner: Top and left of the patch; moved inwards where the patch would leave the image.
        extent: Height and width of the result.
        scale: Factor by which the patch is enlarged; limited in each direction by the size of the image.

    Returns:
        The patch, shape (C, *extent).
    """
    sides = [min(round(side / scale), limit) for side, limit in zip(extent, image_size(image), strict=True)]
    y, x = (min(start, limit - side) for start, side, limit in zip(corner, sides, image_size(image), strict=True))
    patch = image[None, :, y : y + sides[0], x : x + sides[1]]
    return functional.interpolate(patch, size=extent, mode="bilinear", align_corners=False)[0]


def blend(patch: Tensor, target: Tensor) -> Tensor:
    """Clone seamlessly: combine the gradients of ``patch`` with the border of ``target``.

    The result f obeys Poisson's equation Δf = Δpatch and equals ``target`` on the outermost ring of pixels. Its
    difference from the patch is harmonic, so it depends only on the difference of the two rings.

    Args:
        patch: Patch, shape (C, h + 2, w + 2), float.
        target: Target region, same shape.

    Returns:
        f inside the ring, shape (C, h, w). Values may leave [0, 1].
    """
    ring = target - patch
    # The neighbours on the ring, moved to the right-hand side of the discrete Laplace equation.
    load = torch.zeros_like(patch[:, 1:-1, 1:-1])
    load[:, 0] += ring[:, 0, 1:-1]
    load[:, -1] += ring[:, -1, 1:-1]
    load[:, :, 0] += ring[:, 1:-1, 0]
    load[:, :, -1] += ring[:, 1:-1, -1]
    return patch[:, 1:-1, 1:-1] + solve_poisson(load)


def solve_poisson(load: Tensor) -> Tensor:
    """Solve -Δu = ``load`` for u that is zero on the border, with the five-point Laplacian Δ.

    Sine functions are its eigenvectors, so the discrete sine transform turns the equation into a division.

    Args:
        load: Right-hand side, shape (C, h, w), float.

    Returns:
        u, shape (C, h, w).
    """
    (rows, row_values), (columns, column_values) = (_sines(side, load) for side in image_size(load))
    spectrum = rows @ load @ columns / (row_values[:, None] + column_values)
    return rows @ spectrum @ columns


def _sines(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal eigenvectors (side, side) and eigenvalues (side,) of the negative Laplacian in 1-D."""
    numbers = torch.arange(1, side + 1, device=like.device, dtype=like.dtype)
    angles = math.pi / (side + 1) * numbers
    vectors: Tensor = (2 / (side + 1)) ** 0.5 * torch.sin(angles[:, None] * numbers)
    return vectors, 2 - 2 * torch.cos(angles)
