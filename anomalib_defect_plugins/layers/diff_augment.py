"""Differentiable augmentation of a discriminator's input, https://arxiv.org/abs/2006.10738.

Real and generated images are augmented alike in the updates of both networks, so that a discriminator cannot learn few
real images by heart, and a generator does not learn to reproduce the augmentation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_kinds


class DiffAugment:
    """Augments each image of a batch by itself; gradients pass through.

    Args:
        policy: Some of ``color``, ``translation`` and ``cutout``; none leaves images as they are. ``cutout`` hides a
            quarter of the image, and with it the whole of a small defect.

    Raises:
        InvalidInputError: If a policy is unknown.
    """

    def __init__(self, policy: Sequence[str] = ()) -> None:
        self.policy = check_kinds("diff_augment", policy, tuple(POLICIES)) if policy else ()

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Augment images, shape (B, C, H, W), float in [-1, 1]; colours may leave the range.

        Args:
            images: Images on any device.
            rng: CPU generator; it is not used without a policy.
        """
        for name in self.policy:
            images = POLICIES[name](images, rng)
        return images


def change_color(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shift the brightness by up to 0.5, scale the saturation by 0 to 2 and the contrast by 0.5 to 1.5."""
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, generator=rng).to(images)
    images = images + brightness - 0.5
    grey = images.mean(1, keepdim=True)
    images = grey + 2 * saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translate(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the side in both directions; 0 fills the border."""
    height, width = images.shape[-2:]
    down, right = (side // 8 for side in (height, width))
    padded = functional.pad(images, (right, right, down, down))
    tops, lefts = (torch.randint(2 * most + 1, (len(images),), generator=rng).tolist() for most in (down, right))
    windows = [image[:, y : y + height, x : x + width] for image, y, x in zip(padded, tops, lefts, strict=True)]
    return torch.stack(windows)


def cut_out(images: Tensor, rng: torch.Generator) -> Tensor:
    """Set a rectangle of half the height and width to 0; it may extend beyond the border."""
    inside = [
        _interval(side, torch.randint(side, (len(images), 1), generator=rng)).to(images.device)
        for side in images.shape[-2:]
    ]
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def _interval(side: int, center: Tensor) -> Tensor:
    """Return which of ``side`` positions are within a quarter of the side of the centres (B, 1), shape (B, side)."""
    return (torch.arange(side) - center).abs() <= side // 4


POLICIES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": change_color,
    "translation": translate,
    "cutout": cut_out,
}
