"""CutPaste and CutPaste-Scar: a patch of the image with jittered colours, pasted elsewhere in the same image.

Li, Sohn, Yoon, Pfister: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization. CVPR 2021,
section 2.2 and appendix. https://arxiv.org/abs/2104.04015
"""

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from anomalib_defect_plugins.core.checks import check_number, check_range
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.geometry import image_size, log_uniform, rectangle_size, two_positions


class CutPasteDefects(DefectGenerator):
    """Paste a rectangle of an image elsewhere in the same image, at least half of its height or width away.

    Args:
        area: Minimum and maximum area of the rectangle, as fractions of the image's, at most 0.3.
        aspect: Minimum and maximum width divided by height, drawn log-uniformly.
        jitter: Strength of the change of brightness, contrast, saturation and hue as in torchvision's ``ColorJitter``,
            in [0, 0.5]. Saturation and hue of one-channel images do not change.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    name: ClassVar[str] = "cutpaste"

    def __init__(
        self,
        area: tuple[float, float] = (0.02, 0.15),
        aspect: tuple[float, float] = (0.3, 3.3),
        jitter: float = 0.1,
    ) -> None:
        check_range("area of CutPasteDefects", area, 1e-4, 0.3)
        check_range("aspect of CutPasteDefects", aspect, 0.05, 20)
        check_number("jitter of CutPasteDefects", jitter, 0, 0.5)
        self.area = area
        self.aspect = aspect
        self.jitter = jitter

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut and paste in each image of (B, C, H, W)."""
        geometry, size = numpy_rng(rng), image_size(images)
        result, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        for row, image in enumerate(images):
            height, width = rectangle_size(size, geometry.uniform(*self.area), log_uniform(geometry, self.aspect))
            (y, x), (top, left) = two_positions(size, (height, width), geometry)
            patch = jitter_colours(image[:, y : y + height, x : x + width], self.jitter, geometry)
            result[row, :, top : top + height, left : left + width] = patch
            mask[row, :, top : top + height, left : left + width] = True
        return result, mask


class CutPasteScarDefects(DefectGenerator):
    """Paste a thin rectangle of an image, rotated, elsewhere in the same image.

    Args:
        width: Minimum and maximum width of the rectangle in pixels, for an image whose shorter side is 256; scales with
            the image and is at least two pixels.
        length: Minimum and maximum height of the rectangle before the rotation, in the same units.
        rotation: Maximum rotation to either side in degrees, in [0, 180].
        jitter: As in ``CutPasteDefects``.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    name: ClassVar[str] = "cutpaste_scar"

    def __init__(
        self,
        width: tuple[float, float] = (2, 16),
        length: tuple[float, float] = (10, 25),
        rotation: float = 45,
        jitter: float = 0.1,
    ) -> None:
        check_range("width of CutPasteScarDefects", width, 1, 100)
        check_range("length of CutPasteScarDefects", length, 1, 100)
        check_number("rotation of CutPasteScarDefects", rotation, 0, 180)
        check_number("jitter of CutPasteScarDefects", jitter, 0, 0.5)
        self.width = width
        self.length = length
        self.rotation = rotation
        self.jitter = jitter

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut, rotate and paste in each image of (B, C, H, W)."""
        geometry, size = numpy_rng(rng), image_size(images)
        result, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        for row, image in enumerate(images):
            height, width = (max(2, round(geometry.uniform(*x) * min(size) / 256)) for x in (self.length, self.width))
            window = math.ceil(math.hypot(height, width)) + 2  # holds the scar at any angle
            (y, x), (top, left) = two_positions(size, (window, window), geometry)
            patch = jitter_colours(image[:, y : y + height, x : x + width], self.jitter, geometry)
            scar, shape = rotate(patch, geometry.uniform(-self.rotation, self.rotation))
            rows, columns = slice(top, top + shape.shape[0]), slice(left, left + shape.shape[1])
            result[row, :, rows, columns] = torch.where(shape, scar, image[:, rows, columns])
            mask[row, 0, rows, columns] = shape
        return result, mask


def jitter_colours(patch: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue in this order, with the ranges of ``ColorJitter(amount, ...)``.

    Args:
        patch: Patch, shape (C, H, W), float in [0, 1]; C is 1 or 3.
        amount: Brightness, contrast and saturation are multiplied by factors in 1 ± amount; hue is shifted by up to
            ± amount of a turn.
        rng: Source of randomness.

    Returns:
        The patch, shape (C, H, W), in [0, 1].
    """
    brightness, contrast, saturation = rng.uniform(1 - amount, 1 + amount, 3)
    hue = rng.uniform(-amount, amount)
    patch = functional.adjust_contrast(functional.adjust_brightness(patch, brightness), contrast)
    if len(patch) == 1:
        return patch
    result: Tensor = functional.adjust_hue(functional.adjust_saturation(patch, saturation), hue)
    return result


def rotate(patch: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Rotate a patch counter-clockwise on a canvas large enough to hold it.

    Args:
        patch: Patch, shape (C, H, W), float.
        degrees: Angle in degrees.

    Returns:
        The canvas, shape (C, h, w), by nearest-neighbour interpolation, and the mask of the patch on it, shape (h, w),
        bool.
    """
    with_shape = torch.cat([patch, torch.ones_like(patch[:1])])
    canvas = functional.rotate(with_shape, degrees, expand=True)
    return canvas[:-1], canvas[-1] > 0
