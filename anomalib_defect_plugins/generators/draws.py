"""What generators draw besides pixels: random numbers, rectangles and places; and the checks of their arguments.

Geometry is drawn on the CPU with numpy, whose numbers depend on the given generator alone and not on a device.
"""

from collections.abc import Sequence

import numpy as np
import torch

from anomalib_defect_plugins.errors import InvalidInputError

Pair = tuple[int, int]
"""Height and width, or top and left, in pixels."""


def numpy_rng(rng: torch.Generator) -> np.random.Generator:
    """A numpy generator seeded from ``rng``, which moves on."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))


def device_rng(rng: torch.Generator, device: torch.device) -> torch.Generator:
    """``rng`` itself if ``device`` is where it draws, else a generator of the device seeded from it."""
    if device == rng.device:
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))


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


def check_range(what: str, given: tuple[float, float], low: float, high: float) -> None:
    """Raise InvalidInputError unless ``given`` is a pair in order within [``low``, ``high``]."""
    if len(given) != 2 or not low <= given[0] <= given[1] <= high:
        msg = f"{what} is {given}; it must be the least and the greatest, within {low:g} and {high:g}"
        raise InvalidInputError(msg)


def check_number(what: str, given: float, low: float, high: float) -> None:
    """Raise InvalidInputError unless ``given`` is within [``low``, ``high``]."""
    if not low <= given <= high:
        msg = f"{what} is {given}; it must be within {low:g} and {high:g}"
        raise InvalidInputError(msg)


def check_kinds(what: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Give the kinds as a tuple, or raise InvalidInputError if there is none or an unknown one."""
    if isinstance(given, str) or not given or not set(given) <= set(known):
        msg = f"{what} is {given!r}; it must be a list of some of {', '.join(known)}"
        raise InvalidInputError(msg)
    return tuple(given)
