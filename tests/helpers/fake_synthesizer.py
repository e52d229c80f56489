"""A fake of a trained model that synthesizes defects: no test has the time to train one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from anomalib_defect_plugins.core.image_io import Size

MakeImages = Callable[..., list[dict[str, Any]]]
"""Type of the fixture ``make``: synthesizes images into a folder and returns their rows."""


class FakeOutput(NamedTuple):
    """Output of the fake.

    Args:
        images: Images, shape (B, 3, H, W), float in [0, 1].
        maps: Maps, shape (B, 1, H, W), in [0, 1].
    """

    images: Tensor
    maps: Tensor


class FakeSynthesizer:
    """Paints a white square of 8 pixels at a random place whose upper left corner the control map allows.

    Args:
        categories: Categories of its defects.
        image_size: Size of its images.
        blind: Share of the images that it leaves unchanged.
        floor: Value of its maps outside of the square; it is 0.9 inside.

    Attributes:
        controls: Control maps that it has been called with.
        label_sets: Number of its training images with each set of types.
    """

    def __init__(
        self,
        categories: tuple[str, ...] = ("crack", "dent"),
        image_size: Size = (32, 48),
        blind: float = 0,
        floor: float = 0,
    ) -> None:
        self.categories = categories
        self.image_size = image_size
        self.blind = blind
        self.floor = floor
        self.controls: list[Tensor] = []
        self.label_sets: dict[str, int] = {}

    def synthesize(self, images: Tensor, control: Tensor, rng: torch.Generator | None = None) -> FakeOutput:
        """Paint a square."""
        self.controls.append(control)
        images = interpolate(images, self.image_size, mode="bicubic", antialias=True).clamp(0, 1)
        maps = torch.full_like(images[:, :1], self.floor)
        free = control.amax(1).expand(1, *self.image_size)[0, :-8, :-8].nonzero()
        if torch.rand((), generator=rng) >= self.blind:
            top, left = free[int(torch.randint(len(free), (), generator=rng))].tolist()
            maps[..., top : top + 8, left : left + 8] = 0.9
        return FakeOutput(images * (1 - maps) + maps, maps)

    def restore(self, images: Tensor) -> FakeOutput:
        """Return the images a little darker."""
        return FakeOutput(images * 0.9, torch.zeros_like(images[:, :1]))

    def draw_defects(
        self, images: Tensor, control: Tensor, rng: torch.Generator, threshold: float = 0.5
    ) -> tuple[Tensor, Tensor]:
        """Paint a square on images of the fake's own size."""
        drawn, maps = self.synthesize(images, control, rng)
        return drawn, maps > threshold

    def affected_region(self, control: Tensor) -> Tensor:
        """Return the control map, enlarged by the square."""
        region = control.amax(1, keepdim=True).expand(-1, -1, *self.image_size)
        return torch.nn.functional.max_pool2d(region, 17, 1, 8) > 0

    def defect_masks(self, maps: Tensor, threshold: float = 0.5, max_share: float = 0.5) -> Tensor:
        """Return where the maps are above the threshold, unless that covers too much."""
        masks = maps > threshold
        return masks & (masks.float().mean((1, 2, 3), keepdim=True) <= max_share)
