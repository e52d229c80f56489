"""Stands in for a trained Defect-GAN, which no test has the time to train."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate


class Made(NamedTuple):
    images: Tensor
    maps: Tensor


class SquareGan:
    """Paints a white square of 8 pixels somewhere, where the control map allows its upper left corner.

    Args:
        categories: Its types of defect.
        image_size: Height and width of its images.
        blind: Share of the images that it leaves as they are.
        floor: Its maps outside of the square.
    """

    def __init__(
        self,
        categories: tuple[str, ...] = ("crack", "dent"),
        image_size: tuple[int, int] = (32, 48),
        blind: float = 0,
        floor: float = 0,
    ) -> None:
        self.categories = categories
        self.image_size = image_size
        self.blind = blind
        self.floor = floor
        self.controls: list[Tensor] = []

    def synthesize(self, images: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Made:
        """Paint."""
        self.controls.append(control)
        images = interpolate(images, self.image_size, mode="bicubic", antialias=True).clamp(0, 1)
        maps = torch.full_like(images[:, :1], self.floor)
        free = control.amax(1).expand(1, *self.image_size)[0, :-8, :-8].nonzero()
        if torch.rand((), generator=rng) >= self.blind:
            top, left = free[torch.randint(len(free), (), generator=rng)]
            maps[..., top : top + 8, left : left + 8] = 0.9
        return Made(images * (1 - maps) + maps, maps)

    def restore(self, images: Tensor) -> Made:
        """Give it back, a little darker."""
        return Made(images * 0.9, torch.zeros_like(images[:, :1]))
