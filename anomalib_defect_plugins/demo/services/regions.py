"""From a map and a threshold to a mask, and to a list of the connected regions in it; no model is asked again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

NEIGHBOURS = np.ones((3, 3))
"""Pixels that touch at a corner are of one region, as in anomalib."""

COLUMNS = ("area", "x", "y", "width", "height", "mean_score")
"""Columns of a region: its area, left, top, width and height in pixels of the image, and the mean of the map in it."""

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True)
class Region:
    """A defect: pixels above the threshold that hang together.

    Args:
        area: Its pixels.
        x: Its left edge.
        y: Its top edge.
        width: Width of the box around it.
        height: Height of the box.
        mean_score: Mean of the map in it.
    """

    area: int
    x: int
    y: int
    width: int
    height: int
    mean_score: float


def find_regions(heat: np.ndarray, threshold: float, size: Size) -> tuple[np.ndarray, list[Region]]:
    """Find what is above a threshold.

    Args:
        heat: The map, (h, w), not larger than the image.
        threshold: A pixel is defective if the map is above it.
        size: Of the image; areas and boxes are in its pixels, as in :func:`enlarged`.

    Returns:
        The mask (h, w), bool, and its regions, the largest first.
    """
    mask = heat > threshold
    labels, count = ndimage.label(mask, NEIGHBOURS)
    rows, columns = (_shares(small, large) for small, large in zip(heat.shape, size, strict=True))
    flat = labels.ravel()
    pixels = np.bincount(flat, minlength=count + 1)
    areas = np.bincount(flat, np.outer(rows, columns).ravel(), count + 1)
    sums = np.bincount(flat, heat.ravel(), count + 1)
    top, left = (np.concatenate([[0], np.cumsum(shares)]) for shares in (rows, columns))
    regions = [
        Region(
            int(areas[number]),
            int(left[across.start]),
            int(top[down.start]),
            int(left[across.stop] - left[across.start]),
            int(top[down.stop] - top[down.start]),
            float(sums[number] / pixels[number]),
        )
        for number, (down, across) in enumerate(ndimage.find_objects(labels), start=1)
    ]
    return mask, sorted(regions, key=lambda region: -region.area)


def enlarged(mask: np.ndarray, size: Size) -> np.ndarray:
    """Give a mask at the size of its image: each pixel takes the value of the one that lies under it."""
    down, across = (_places(small, large) for small, large in zip(mask.shape, size, strict=True))
    return mask[down[:, None], across]


def table(regions: Sequence[Region]) -> Iterable[list[float]]:
    """Give the rows of a table of regions, see ``COLUMNS``."""
    return ([getattr(region, name) for name in COLUMNS] for region in regions)


def outline(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """Give the border of a mask, ``width`` pixels inside it."""
    return mask & ~ndimage.binary_erosion(mask, NEIGHBOURS, iterations=width)


def ring(mask: np.ndarray, width: int = 2) -> np.ndarray:
    """Give what surrounds a mask, ``width`` pixels wide and a pixel away from it, so that it hides nothing."""
    near, far = (ndimage.binary_dilation(mask, NEIGHBOURS, iterations=steps) for steps in (1, 1 + width))
    return far & ~near


def _places(small: int, large: int) -> np.ndarray:
    """For each of ``large`` pixels in a row, say which of ``small`` lies under it."""
    return np.arange(large) * small // large


def _shares(small: int, large: int) -> np.ndarray:
    """For each of ``small`` pixels in a row, count those of ``large`` that it lies under."""
    return np.bincount(_places(small, large), minlength=small)
