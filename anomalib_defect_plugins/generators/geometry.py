"""Random sizes, positions and lengths that the generators share.

Geometry is drawn on the CPU with numpy, whose numbers do not depend on the device of the images.
"""

from typing import overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

Floats = npt.NDArray[np.float64]

Pair = tuple[int, int]
"""Height and width, or top and left, in pixels."""


def image_size(images: Tensor) -> Pair:
    """Return height and width of images (..., H, W)."""
    height, width = images.shape[-2:]
    return height, width


@overload
def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float: ...


@overload
def log_uniform(rng: np.random.Generator, limits: tuple[float, float], size: int | tuple[int, ...]) -> Floats: ...


def log_uniform(
    rng: np.random.Generator, limits: tuple[float, float], size: int | tuple[int, ...] | None = None
) -> Floats | float:
    """Draw log-uniformly between two positive limits: an array of shape ``size``, or a single number."""
    low, high = np.log(limits)
    numbers: Floats | float = np.exp(rng.uniform(low, high, size=size))
    return numbers


def rectangle_size(size: Pair, area: float, aspect: float, margin: int = 0) -> Pair:
    """Return height and width of a rectangle that fits into an image, each at least two pixels.

    Args:
        size: Height and width of the image.
        area: Area as a fraction of the image's; smaller if a side has to be cut to fit.
        aspect: Width divided by height.
        margin: Pixels that stay free at each border.
    """
    pixels = area * size[0] * size[1]
    sides = (round((pixels / aspect) ** 0.5), round((pixels * aspect) ** 0.5))
    height, width = (min(max(side, 2), limit - 2 * margin) for side, limit in zip(sides, size, strict=True))
    return height, width


def random_position(size: Pair, patch: Pair, rng: np.random.Generator) -> Pair:
    """Draw top and left of a patch of height and width ``patch`` in an image of height and width ``size``."""
    top, left = (int(rng.integers(side - extent + 1)) for side, extent in zip(size, patch, strict=True))
    return top, left


def two_positions(size: Pair, patch: Pair, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Draw two positions of a patch in an image, at least half of the patch apart vertically or horizontally.

    The patch must take up at most two thirds of the image's height or width, or there may be no such positions.
    """
    while True:
        first, second = random_position(size, patch, rng), random_position(size, patch, rng)
        if any(2 * abs(a - b) >= extent for a, b, extent in zip(first, second, patch, strict=True)):
            return first, second
