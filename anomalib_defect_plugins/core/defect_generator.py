"""What a source of synthetic defects is: normal images in, defective images and exact masks out."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError

VISIBLE = 2 / 255
"""A defect is one if it changes some pixel by more than this: rounded to 8 bits, it is still there."""

MIN_SIDE = 32
"""Least side of an image that defects are drawn on, in pixels."""


class DefectGenerator(ABC):
    """Base of the sources of synthetic defects. A subclass implements ``draw``.

    Attributes:
        name: The name that it is registered by, which is also the defect type of its defects.
        batched: Whether it draws on a whole batch at once, on the device of the images. If not, ``WithDefects`` lets
            the processes that read images draw, one image at a time.
    """

    name: ClassVar[str]
    batched: ClassVar[bool] = True

    def __call__(self, images: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Make one defect, or a few of a kind, on each image.

        Args:
            images: (B, C, H, W), float32 in [0, 1], C 1 or 3, H and W at least ``MIN_SIDE``, on any device. They are
                not changed. B may be 0.
            rng: Source of all randomness, a generator of the CPU: the same state gives the same defects on one device.
                By default torch's own.

        Returns:
            Defective images (B, C, H, W), in [0, 1] and equal to ``images`` outside their masks, and the masks
            (B, 1, H, W), bool. Where nothing to be seen came out, the image is the original one and its mask is empty.

        Raises:
            InvalidInputError: The images are no such tensor.
        """
        _check(images)
        images = images.as_subclass(Tensor)
        if not len(images):
            return images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        # Models ask for defects in a training step, where mixed precision would shorten some of the tensors here.
        with torch.autocast(images.device.type, enabled=False):
            defective, mask = self.draw(images, torch.default_generator if rng is None else rng)
        defective = torch.where(mask, defective.clamp(0, 1), images)
        seen = ((defective - images).abs() > VISIBLE).flatten(1).any(1)[:, None, None, None]
        return torch.where(seen, defective, images), mask & seen

    @abstractmethod
    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the defects; what it leaves outside the masks, and values beyond [0, 1], do not matter.

        Args:
            images: As in ``__call__``, one at least, never a subclass of ``Tensor``. They must not be changed.
            rng: A generator of the CPU, the source of all randomness.

        Returns:
            Images (B, C, H, W) and masks (B, 1, H, W), bool, both on the device of ``images``.
        """


def _check(images: Tensor) -> None:
    form = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if images.ndim != 4 or images.dtype != torch.float32 or images.shape[1] not in {1, 3}:
        msg = f"defects are drawn on float32 (B, C, H, W) with 1 or 3 channels, not on {form}"
        raise InvalidInputError(msg)
    if min(images.shape[-2:]) < MIN_SIDE:
        msg = f"defects are drawn on images of {MIN_SIDE} pixels a side or more, not on {form}"
        raise InvalidInputError(msg)
