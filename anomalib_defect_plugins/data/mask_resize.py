"""Resizing of masks that keeps thin defects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F
from torchvision.transforms.v2 import Compose, Resize, Transform
from torchvision.tv_tensors import Image, Mask


def resize_mask(mask: torch.Tensor, size: tuple[int, int]) -> Mask:
    """Resize a mask without losing marked pixels.

    Args:
        mask: Mask, shape (H, W), uint8, 0 or 1.
        size: Height and width. Along a reduced axis a pixel is marked if any part of it was; along an enlarged axis the
            nearest pixel is repeated.

    Returns:
        Resized mask, shape ``size``, uint8, 0 or 1.
    """
    shrunk = [min(sides) for sides in zip(mask.shape, size, strict=True)]
    marked = F.adaptive_max_pool2d(mask[None, None].float(), shrunk)
    return Mask(F.interpolate(marked, size, mode="nearest-exact")[0, 0], dtype=torch.uint8)


def augment(augmentations: Transform, image: Image, *masks: Mask | None) -> tuple[Any, ...]:
    """Apply augmentations, the last of which usually resizes to the size of the model.

    Masks are resized to the nearest pixels as in anomalib, except for defects that would vanish between these pixels.

    Args:
        augmentations: Augmentations of an image and its masks.
        image: Image, shape (3, H, W).
        masks: Its masks, shape (H, W), or ``None``.

    Returns:
        Augmented image and masks.
    """
    given = {index: mask for index, mask in enumerate(masks) if mask is not None}
    if not given:
        return augmentations(image), *masks
    *steps, last = flat_steps(augmentations)
    moved: tuple[Any, ...] = (image, *given.values())
    for step in steps:
        moved = step(*moved)
    result, *last_masks = last(*moved)
    if isinstance(last, Resize):
        last_masks = [keep_thin(mask, resized) for mask, resized in zip(moved[1:], last_masks, strict=True)]
    of_index = dict(zip(given, last_masks, strict=True))
    return result, *(of_index.get(index) for index in range(len(masks)))


def keep_thin(mask: Mask, resized: Mask) -> Mask:
    """Add the defects to a resized mask that have vanished from it: each pixel that they touch is marked.

    Args:
        mask: Mask, shape (H, W), uint8, 0 or 1.
        resized: The mask resized to the nearest pixels, shape (h, w); returned as it is if each defect is left.
    """
    height, width = resized.shape
    if (height >= mask.shape[0] and width >= mask.shape[1]) or not mask.any():
        return resized
    touched = resize_mask(mask, (height, width))
    regions, number = ndimage.label(touched, np.ones((3, 3)))
    left = np.unique(regions[resized.numpy() > 0])
    if number == np.count_nonzero(left):
        return resized
    vanished = (regions > 0) & ~np.isin(regions, left)
    return Mask(resized | torch.from_numpy(vanished), dtype=resized.dtype)


def ignored_pixels(batch: Any, size: Sequence[int]) -> torch.Tensor | None:
    """Return the pixels of a batch that are neither defective nor normal.

    Args:
        batch: Batch, whose ``ignore_mask`` may have the size of its files.
        size: Height and width of the images.

    Returns:
        Pixels, shape (B, 1, H, W), bool; ``None`` if none are known.
    """
    masks = getattr(batch, "ignore_mask", None)
    if masks is None:
        return None
    height, width = size
    resized = [
        mask if mask.shape == (height, width) else resize_mask(mask.as_subclass(torch.Tensor), (height, width))
        for mask in masks
    ]
    return torch.stack([mask.as_subclass(torch.Tensor).bool() for mask in resized])[:, None]


def flat_steps(augmentations: Transform | None) -> list[Any]:
    """Return the transforms of a composition in order, those of nested ones too."""
    if not isinstance(augmentations, Compose):
        return [augmentations]
    return [step for part in augmentations.transforms for step in flat_steps(part)]
