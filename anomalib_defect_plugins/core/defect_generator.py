"""Base class of the generators of synthetic defects: normal images in, defective images and exact masks out."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError

VISIBLE = 2 / 255
"""A defect is visible where it changes a pixel by more than this, so that it survives rounding to 8 bits."""

CLOSING = 5
"""Side in pixels of the square that closes gaps between visible pixels, where the new texture equals the old."""

MIN_SIDE = 32
"""Minimum height and width of the images that defects are drawn on, in pixels."""


class DefectGenerator(ABC):
    """Base class of generators of synthetic defects. A subclass implements ``draw``.

    Attributes:
        name: Registered name of the generator, and the defect type of its defects.
        batched: Whether the generator draws on a whole batch at once, on the device of the images. If not,
            ``WithDefects`` calls it in the data-loading workers, one image at a time.
        needs_checkpoint: Whether the generator needs the checkpoint of a trained model.
    """

    name: ClassVar[str]
    batched: ClassVar[bool] = True
    needs_checkpoint: ClassVar[bool] = False

    def __call__(self, images: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw one defect, or a few of one kind, on each image.

        Args:
            images: Images, shape (B, C, H, W), float32 in [0, 1], on any device. C is 1 or 3, H and W are at least
                ``MIN_SIDE``, B may be 0. They are not modified.
            rng: CPU generator, the only source of randomness: the same state yields the same defects on one device.
                Defaults to torch's global generator.

        Returns:
            Defective images, shape (B, C, H, W), in [0, 1] and equal to ``images`` outside the masks, and masks, shape
            (B, 1, H, W), bool, true where the defect is visible, see :func:`visible_change`. If it is not visible
            anywhere, the image is the original one and its mask is empty.

        Raises:
            InvalidInputError: If the shape or the dtype of the images is invalid.
        """
        _check(images)
        images = images.as_subclass(Tensor)
        if not len(images):
            return images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        # Models request defects during a training step, where autocast would lower the precision of some tensors.
        with torch.autocast(images.device.type, enabled=False):
            defective, mask = self.draw(images, torch.default_generator if rng is None else rng)
        defective = defective.clamp(0, 1)
        mask = mask & visible_change(images, defective)
        return torch.where(mask, defective, images), mask

    @abstractmethod
    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the defects. Pixels outside the masks are ignored, and values beyond [0, 1] are clipped.

        Args:
            images: As in ``__call__``, with B at least 1, and never a subclass of ``Tensor``. Must not be modified.
            rng: CPU generator, the only source of randomness.

        Returns:
            Images, shape (B, C, H, W), and masks, shape (B, 1, H, W), bool, both on the device of ``images``.
        """


def visible_change(images: Tensor, defective: Tensor) -> Tensor:
    """Return where images differ visibly, with small gaps closed.

    Args:
        images: Images, shape (B, C, H, W), float in [0, 1].
        defective: Changed images, same shape.

    Returns:
        Masks, shape (B, 1, H, W), bool: the morphological closing of the pixels that differ by more than ``VISIBLE`` in
        any channel, with a square of ``CLOSING`` pixels.
    """
    changed = ((defective - images).abs().amax(1, keepdim=True) > VISIBLE).float()
    dilated = functional.max_pool2d(changed, CLOSING, 1, CLOSING // 2)
    return -functional.max_pool2d(-dilated, CLOSING, 1, CLOSING // 2) > 0


def _check(images: Tensor) -> None:
    form = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if images.ndim != 4 or images.dtype != torch.float32 or images.shape[1] not in {1, 3}:
        msg = f"defects are drawn on float32 (B, C, H, W) with 1 or 3 channels, not on {form}"
        raise InvalidInputError(msg)
    if min(images.shape[-2:]) < MIN_SIDE:
        msg = f"defects are drawn on images of {MIN_SIDE} pixels a side or more, not on {form}"
        raise InvalidInputError(msg)
