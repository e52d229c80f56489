"""Gaussian noise in random masks, https://doi.org/10.1109/TII.2022.3217751, section III-A, eq. 1."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds, check_number
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.generators.geometry import image_size
from anomalib_defect_plugins.generators.masks import LOCAL_KINDS, MASK_KINDS, random_masks


class NoiseDefects(DefectGenerator):
    """Fill random masks with Gaussian noise, independent for each pixel and channel.

    Args:
        mean: Mean of the noise, in [0, 1].
        std: Standard deviation of the noise, in [0.01, 1]. Values outside [0, 1] are clipped.
        kinds: Kinds of mask, a subset of ``MASK_KINDS``; a batch mixes them.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    name: ClassVar[str] = "noise"

    def __init__(self, mean: float = 0.5, std: float = 0.25, kinds: Sequence[str] = LOCAL_KINDS) -> None:
        check_number("mean of NoiseDefects", mean, 0, 1)
        check_number("std of NoiseDefects", std, 0.01, 1)
        self.mean = mean
        self.std = std
        self.kinds = check_kinds("kinds of NoiseDefects", kinds, MASK_KINDS)

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw noise on images (B, C, H, W) in masks (B, 1, H, W)."""
        mask = random_masks(len(images), image_size(images), rng, images.device, self.kinds)
        # Eq. 1 with a binary mask, so noise is drawn only for the pixels inside.
        pixels = torch.empty(int(mask.sum()) * images.shape[1], device=images.device)
        noise = pixels.normal_(self.mean, self.std, generator=device_rng(rng, images.device))
        return images.masked_scatter(mask, noise), mask
