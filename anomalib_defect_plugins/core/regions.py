"""Defects in an anomaly map: the connected regions at or above a threshold that are large enough, and their display.

Mask, list of defects and verdict follow from one threshold: an image is defective exactly if it has such a region.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_defect_plugins.core.errors import InvalidInputError
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
    anomaly_map: npt.NDArray[np.floating[Any]], threshold: float, size: Size, min_area: int = 1
) -> tuple[npt.NDArray[np.bool_], list[Region]]:
    """Find the regions of pixels at or above a threshold.

    Args:
        anomaly_map: Anomaly map, shape (h, w), not larger than the image.
        threshold: Threshold in the units of the map.
        size: Size of the image; areas and boxes are in its pixels, as in :func:`source_pixels`.
        min_area: Minimum area of a region, in pixels of the image; smaller ones are not part of the mask.

    Returns:
        The mask, shape (h, w), bool; and its regions, largest first.
    """
    return regions_of(anomaly_map >= threshold, anomaly_map, size, min_area)


def regions_of(
    mask: npt.NDArray[np.bool_], anomaly_map: npt.NDArray[np.floating[Any]], size: Size, min_area: int = 1
) -> tuple[npt.NDArray[np.bool_], list[Region]]:
    """Find the regions of a mask, shape (h, w); other arguments and results as of :func:`find_regions`."""
    if not mask.any():
        return mask, []
    labels, areas, top, left = _labelled(mask, size)
    pixels = np.bincount(labels.ravel(), minlength=len(areas))
    sums = np.bincount(labels.ravel(), anomaly_map.ravel(), len(areas))
    is_large = areas >= min_area
    is_large[0] = False
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
        if is_large[number]
    ]
    return is_large[labels], sorted(regions, key=lambda region: -region.area)


def region_score(anomaly_map: npt.NDArray[np.floating[Any]], size: Size, min_area: int = 1) -> float:
    """Return the highest threshold at which an image has a region: its score, if defects have a minimum area.

    The maximum of the area opening of the map (Vincent, Morphological area openings and closings, 1993).

    Args:
        anomaly_map: Anomaly map, shape (h, w), not larger than the image.
        size: Size of the image.
        min_area: Minimum area of a region, in pixels of the image.

    Raises:
        InvalidInputError: If the image is smaller than the minimum area.
    """
    if min_area <= 1:
        return float(anomaly_map.max())
    if min_area > size[0] * size[1]:
        msg = f"the minimum area of a defect is {min_area} pixels, more than an image of {size[1]}x{size[0]} has"
        raise InvalidInputError(msg)
    # The largest region only grows when the threshold is lowered, so that bisection finds it.
    values = np.unique(anomaly_map)
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high + 1) // 2
        _, areas, _, _ = _labelled(anomaly_map >= values[middle], size)
        low, high = (middle, high) if areas[1:].max(initial=0) >= min_area else (low, middle - 1)
    return float(values[low])


def enlarge_mask(mask: npt.NDArray[np.bool_], size: Size) -> npt.NDArray[np.bool_]:
    """Resize a mask to the size of its image, nearest neighbour."""
    down, across = (source_pixels(small, large) for small, large in zip(mask.shape, size, strict=True))
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


def source_pixels(small: int, large: int) -> npt.NDArray[np.intp]:
    """Return the index of the source pixel of each of ``large`` pixels that ``small`` ones are resized to."""
    return np.arange(large) * small // large


def _labelled(
    mask: npt.NDArray[np.bool_], size: Size
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Number the regions of a mask from 1; return their areas by number, and the edges of rows and columns."""
    labels: npt.NDArray[Any]
    labels, count = ndimage.label(mask, NEIGHBOURS)
    rows, columns = (
        np.bincount(source_pixels(small, large), minlength=small) for small, large in zip(mask.shape, size, strict=True)
    )
    areas: npt.NDArray[Any] = np.bincount(labels.ravel(), np.outer(rows, columns).ravel(), count + 1)
    top, left = (np.concatenate([[0], np.cumsum(counts)]) for counts in (rows, columns))
    return labels, areas, top, left
