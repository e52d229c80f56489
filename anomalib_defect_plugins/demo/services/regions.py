"""Thresholding an anomaly map: the mask and its connected regions."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_defect_plugins.core.image_io import Size

NEIGHBOURS = np.ones((3, 3))
"""Structuring element of 8-connectivity, as in anomalib."""


@dataclass(frozen=True)
class Region:
    """A connected region of pixels at or above the threshold, in pixels of the image.

    Args:
        area: Number of pixels.
        x: Left edge of the bounding box.
        y: Top edge of the bounding box.
        width: Width of the bounding box.
        height: Height of the bounding box.
        mean_score: Mean of the anomaly map in the region.
    """

    area: int
    x: int
    y: int
    width: int
    height: int
    mean_score: float


REGION_COLUMNS = tuple(field.name for field in fields(Region))
"""Columns of a table of regions."""


def find_regions(
    anomaly_map: npt.NDArray[np.floating[Any]], threshold: float, size: Size
) -> tuple[npt.NDArray[np.bool_], list[Region]]:
    """Find the pixels at or above a threshold.

    Args:
        anomaly_map: Anomaly map, shape (h, w), not larger than the image.
        threshold: Threshold in the units of the map.
        size: Size of the image; areas and boxes are in its pixels, as in :func:`enlarge_mask`.

    Returns:
        The mask, shape (h, w), bool; and its regions, largest first.
    """
    mask = anomaly_map >= threshold
    labels, count = ndimage.label(mask, NEIGHBOURS)
    rows, columns = (_pixel_counts(small, large) for small, large in zip(anomaly_map.shape, size, strict=True))
    flat = labels.ravel()
    pixels = np.bincount(flat, minlength=count + 1)
    areas = np.bincount(flat, np.outer(rows, columns).ravel(), count + 1)
    sums = np.bincount(flat, anomaly_map.ravel(), count + 1)
    top, left = (np.concatenate([[0], np.cumsum(counts)]) for counts in (rows, columns))
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


def enlarge_mask(mask: npt.NDArray[np.bool_], size: Size) -> npt.NDArray[np.bool_]:
    """Resize a mask to the size of its image, nearest neighbour."""
    down, across = (_source_pixels(small, large) for small, large in zip(mask.shape, size, strict=True))
    return mask[down[:, None], across]


def region_rows(regions: Sequence[Region]) -> Iterable[tuple[float, ...]]:
    """Return the rows of a table of regions, columns as in ``REGION_COLUMNS``."""
    return map(astuple, regions)


def outline(mask: npt.NDArray[np.bool_], width: int = 1) -> npt.NDArray[np.bool_]:
    """Return the inner border of a mask, ``width`` pixels wide."""
    inner: npt.NDArray[np.bool_] = ndimage.binary_erosion(mask, NEIGHBOURS, iterations=width)
    return mask & ~inner


def ring(mask: npt.NDArray[np.bool_], width: int = 2) -> npt.NDArray[np.bool_]:
    """Return a ring around a mask, ``width`` pixels wide and one pixel away, so that it hides nothing of the defect."""
    near, far = (ndimage.binary_dilation(mask, NEIGHBOURS, iterations=steps) for steps in (1, 1 + width))
    return cast(npt.NDArray[np.bool_], far & ~near)


def _source_pixels(small: int, large: int) -> npt.NDArray[np.intp]:
    """Return the index of the source pixel of each of ``large`` pixels that ``small`` ones are resized to."""
    return np.arange(large) * small // large


def _pixel_counts(small: int, large: int) -> npt.NDArray[np.intp]:
    """Return how many of ``large`` pixels each of ``small`` ones covers."""
    return np.bincount(_source_pixels(small, large), minlength=small)
