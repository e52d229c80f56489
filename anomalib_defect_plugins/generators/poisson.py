"""Patches of other images, blended in by Poisson's equation, so that no edge gives the border of the patch away.

Pérez, Gangnet, Blake: Poisson Image Editing. SIGGRAPH 2003, section 2 (seamless cloning). Schlüter et al.: Natural
Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization. ECCV 2022, use it for training defects.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_range
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.geometry import Pair, log_uniform, rectangle, two_places


class PoissonDefects(DefectGenerator):
    """Blend a rectangle of another image of the batch into each image; of the same image if the batch has only one.

    Args:
        area: Least and greatest area of the rectangle, as shares of the image's, at most 0.3; drawn log-uniformly.
        aspect: Least and greatest width divided by height, drawn log-uniformly.
        scale: Least and greatest factor by which the patch is enlarged, drawn log-uniformly.

    Raises:
        InvalidInputError: An argument cannot be.
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
        geometry, size = numpy_rng(rng), images.shape[-2:]
        result, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        # A shift of the batch is the simplest way to give each image another one.
        others = images.roll(int(geometry.integers(1, max(2, len(images)))), dims=0)
        for row, (image, other) in enumerate(zip(images, others, strict=True)):
            area, aspect = log_uniform(geometry, self.area), log_uniform(geometry, self.aspect)
            height, width = rectangle(size, area, aspect, margin=1)
            (y, x), (top, left) = two_places(size, (height + 2, width + 2), geometry)
            target = image[:, top : top + height + 2, left : left + width + 2]
            patch = enlarged(other, (y, x), target.shape[-2:], log_uniform(geometry, self.scale))
            result[row, :, top + 1 : top + 1 + height, left + 1 : left + 1 + width] = blend(patch, target)
            mask[row, :, top + 1 : top + 1 + height, left + 1 : left + 1 + width] = True
        return result, mask


def enlarged(image: Tensor, corner: Pair, extent: Pair, scale: float) -> Tensor:
    """Cut a part of an image (C, H, W) out and resize it.

    Args:
        image: (C, H, W), float.
        corner: Top and left of the part; it moves inwards where the part would leave the image.
        extent: Height and width of the result.
        scale: Factor by which the part is enlarged, in each direction as far as the image has enough pixels.

    Returns:
        The part (C, *extent).
    """
    sides = [min(round(wanted / scale), limit) for wanted, limit in zip(extent, image.shape[-2:], strict=True)]
    y, x = (min(start, limit - side) for start, side, limit in zip(corner, sides, image.shape[-2:], strict=True))
    part = image[None, :, y : y + sides[0], x : x + sides[1]]
    return functional.interpolate(part, size=tuple(extent), mode="bilinear", align_corners=False)[0]


def blend(patch: Tensor, target: Tensor) -> Tensor:
    """Seamless cloning: the gradients of ``patch`` with the border of ``target``.

    The result f obeys Poisson's equation Δf = Δpatch and equals ``target`` on the outermost ring of pixels. Its
    difference to the patch is harmonic, so only the difference of the two rings enters.

    Args:
        patch: (C, h + 2, w + 2), float.
        target: Of the same shape.

    Returns:
        f inside the ring (C, h, w). Values may leave [0, 1].
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
    """Solve -Δu = ``load`` (C, h, w) for u that is zero around, Δ being the five-point Laplacian.

    Sine functions are its eigenvectors, so the discrete sine transform turns it into a division.
    """
    (rows, row_values), (columns, column_values) = (_sines(side, load) for side in load.shape[-2:])
    spectrum = rows @ load @ columns / (row_values[:, None] + column_values)
    return rows @ spectrum @ columns


def _sines(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (side, side), symmetric and orthonormal, and eigenvalues (side,) of minus the second difference."""
    numbers = torch.arange(1, side + 1, device=like.device, dtype=like.dtype)
    angles = math.pi / (side + 1) * numbers
    vectors = (2 / (side + 1)) ** 0.5 * torch.sin(angles[:, None] * numbers)
    return vectors, 2 - 2 * torch.cos(angles)
