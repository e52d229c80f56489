"""How training images are varied, so that a network learns what is in them and not the photographs.

The papers say nothing of it. Without, a network that learns on forty photographs marks what is new in others: another
light, another tilt (measured in the READMEs of SIDN and OneStage).
"""

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
from torch import Tensor, nn


class Augmentation:
    """Cut, mirror, and, if wanted, turn, scale and light each image at random.

    No module, since it would leave the ranges of its draws in a model's checkpoint.

    Args:
        crop: Height and width of the crop in pixels, not more than those of the image, or ``None`` for no crop.
        vary: Whether images are more than cut and mirrored.
    """

    def __init__(self, crop: tuple[int, int] | None, vary: bool) -> None:
        cut = [] if crop is None else [RandomCrop(crop)]
        self.steps = AugmentationSequential(
            *cut, RandomHorizontalFlip(), RandomVerticalFlip(), *(variations() if vary else [])
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Give images (B, C, H, W) in [0, 1] of the crop's size for images (B, C, H, W) in [0, 1]."""
        # Coordinates of half precision are pixels off.
        with torch.autocast(images.device.type, enabled=False):
            return self.steps(images.float()).clamp(0, 1)

    @torch.no_grad()
    def with_masks(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same with images and their masks (B, 1, H, W), bool, which stay on what they mark."""
        with torch.autocast(images.device.type, enabled=False):
            varied, moved = self.steps(images.float(), masks.float(), data_keys=["input", "mask"])
        return varied.clamp(0, 1), moved > 0.5


def variations() -> list[nn.Module]:
    """Give what changes the look of an image, but not whether there is a defect on it.

    Sharpness is left alone: networks that learnt on blurred images were blind to worn texture.
    """
    return [
        RandomAffine(15, translate=(0.05, 0.05), scale=(0.8, 1.25), shear=5, padding_mode="reflection", p=0.7),
        RandomContrast((0.7, 1.3), clip_output=False, p=1.0),
        RandomBrightness((0.8, 1.2), clip_output=True, p=1.0),
        RandomGamma((0.6, 1.6), p=0.5),
    ]
