"""Gaussian noise in random masks: the defect generation module of SIDN (IEEE TII 2022, section III-A, eq. 1)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds, check_number
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.generators.masks import LOCAL_KINDS, MASK_KINDS, random_masks


class NoiseDefects(DefectGenerator):
    """Fill random masks with Gaussian noise, drawn for each pixel and channel by itself.

    Args:
        mean: Mean of the noise, in [0, 1] as the images are.
        std: Standard deviation of the noise, 0.01 to 1. Noise beyond [0, 1] is cut off.
        kinds: Kinds of mask, some of ``MASK_KINDS``; a batch mixes them.

    Raises:
        InvalidInputError: An argument cannot be.
    """

    name: ClassVar[str] = "noise"

    def __init__(self, mean: float = 0.5, std: float = 0.25, kinds: Sequence[str] = LOCAL_KINDS) -> None:
        check_number("mean of NoiseDefects", mean, 0, 1)
        check_number("std of NoiseDefects", std, 0.01, 1)
        self.mean = mean
        self.std = std
        self.kinds = check_kinds("kinds of NoiseDefects", kinds, MASK_KINDS)

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw noise (B, C, H, W) in masks (B, 1, H, W)."""
        mask = random_masks(len(images), images.shape[-2:], rng, images.device, self.kinds)
        # Eq. 1 with a mask of 0 and 1, so noise is drawn where it shows only.
        pixels = torch.empty(int(mask.sum()) * images.shape[1], device=images.device)
        noise = pixels.normal_(self.mean, self.std, generator=device_rng(rng, images.device))
        return images.masked_scatter(mask, noise), mask
