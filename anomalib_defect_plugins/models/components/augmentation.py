"""Augmentation of training images, and of their masks.

Without it, a network trained on forty photographs marks what differs in others, such as light or tilt (measured in
the experiments of the models that use it). The papers do not mention any.
"""

from typing import cast

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomGamma,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from kornia.augmentation.base import _AugmentationBase as Step
from torch import Tensor


class Augmentation:
    """Randomly crop and flip each image, and optionally rotate, scale and relight it.

    Not an ``nn.Module``, which would store the ranges of its draws in the model's checkpoint.

    Args:
        crop: Height and width of the crop in pixels, limited to those of the images; ``None`` does not crop.
        vary: Whether to rotate, scale and relight as well.
    """

    def __init__(self, crop: tuple[int, int] | None, vary: bool) -> None:
        self.crop = crop
        self.vary = vary

    def _steps(self, images: Tensor) -> AugmentationSequential:
        height, width = images.shape[-2:]
        crops: list[Step] = []
        if self.crop is not None:
            crops.append(RandomCrop((min(self.crop[0], height), min(self.crop[1], width))))
        varied = variations() if self.vary else []
        return AugmentationSequential(*crops, RandomHorizontalFlip(), RandomVerticalFlip(), *varied)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Augment images, shape (B, C, H, W), float in [0, 1]; they get the size of the crop."""
        # Half-precision coordinates are off by pixels.
        with torch.autocast(images.device.type, enabled=False):
            return cast(Tensor, self._steps(images)(images.float())).clamp(0, 1)

    @torch.no_grad()
    def with_masks(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Augment images and, with the same geometry, their masks, shape (B, 1, H, W), bool."""
        with torch.autocast(images.device.type, enabled=False):
            varied, moved = self._steps(images)(images.float(), masks.float(), data_keys=["input", "mask"])
        return varied.clamp(0, 1), moved > 0.5


def variations() -> list[Step]:
    """Return augmentations that change the appearance of an image, but not whether it has a defect.

    Sharpness stays as it is: networks trained on blurred images did not detect worn texture.
    """
    return [
        RandomAffine(15, translate=(0.05, 0.05), scale=(0.8, 1.25), shear=5, padding_mode="reflection", p=0.7),
        RandomContrast((0.7, 1.3), clip_output=False, p=1.0),
        RandomBrightness((0.8, 1.2), clip_output=True, p=1.0),
        RandomGamma((0.6, 1.6), p=0.5),
    ]
