"""What generators draw besides pixels: random numbers, rectangles and places; and the checks of their arguments.

Geometry is drawn on the CPU with numpy, whose numbers depend on the given generator alone and not on a device.
"""

import numpy as np

Pair = tuple[int, int]
"""Height and width, or top and left, in pixels."""


def log_uniform(
    rng: np.random.Generator, limits: tuple[float, float], size: int | tuple[int, ...] | None = None
) -> np.ndarray | float:
    """Numbers between two positive limits, each octave as likely as another: an array of ``size``, or a single one."""
    return np.exp(rng.uniform(*np.log(limits), size=size))


def rectangle(size: Pair, area: float, aspect: float, margin: int = 0) -> Pair:
    """Height and width of a rectangle of at least two pixels a side that fits into an image.

    Args:
        size: Height and width of the image.
        area: Share of the image's area. Where a side is cut to fit, less of it comes out.
        aspect: Width divided by height.
        margin: Pixels that stay free at each border.
    """
    pixels = area * size[0] * size[1]
    sides = (round((pixels / aspect) ** 0.5), round((pixels * aspect) ** 0.5))
    height, width = (min(max(side, 2), limit - 2 * margin) for side, limit in zip(sides, size, strict=True))
    return height, width


def place(size: Pair, patch: Pair, rng: np.random.Generator) -> Pair:
    """Top and left of a patch, height and width ``patch``, somewhere in an image of height and width ``size``."""
    top, left = (int(rng.integers(side - extent + 1)) for side, extent in zip(size, patch, strict=True))
    return top, left


def two_places(size: Pair, patch: Pair, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Two places of a patch in an image that differ by half of the patch or more in one direction at least.

    The patch must take at most two thirds of the image in one direction, or there are no such places.
    """
    while True:
        first, second = place(size, patch, rng), place(size, patch, rng)
        if any(2 * abs(a - b) >= extent for a, b, extent in zip(first, second, patch, strict=True)):
            return first, second
