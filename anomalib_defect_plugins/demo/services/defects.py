"""Defects of an image that agree with its verdict: none if it is normal, at least one if it is defective."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.regions import NEIGHBOURS, Region, find_regions

JOINED = 0.01
"""Regions closer than twice this part of the longer side are one defect: a crack is rarely detected in one piece."""

PEAK = 0.9
"""Part of the range of a map from which its highest region is shown, if an image is defective by its score only."""

Mask = npt.NDArray[np.bool_]


def find_defects(
    anomaly_map: npt.NDArray[np.float32], threshold: float, size: Size, is_defective: bool | None, min_area: int = 1
) -> tuple[Mask, list[Region]]:
    """Find the defects of an image.

    Args:
        anomaly_map: Anomaly map, shape (h, w), not larger than the image.
        threshold: Threshold in the units of the map.
        size: Size of the image.
        is_defective: Verdict by the score of the image; ``None`` if it follows from the map.
        min_area: Minimum area of a region in pixels of the image.

    Returns:
        The mask, shape (h, w), bool; and its defects, largest first.
    """
    if is_defective is False:
        return np.zeros(anomaly_map.shape, bool), []
    mask, regions = find_regions(anomaly_map, threshold, size, min_area)
    if is_defective and not regions:
        low, high = float(anomaly_map.min()), float(anomaly_map.max())
        threshold = low + PEAK * (high - low)
        mask, regions = find_regions(anomaly_map, threshold, size)
    if len(regions) < 2:
        return mask, regions
    closed = _close(mask, max(1, round(JOINED * max(mask.shape))))
    return find_regions(np.where(closed, np.maximum(anomaly_map, np.float32(threshold)), -np.inf), threshold, size)


def _close(mask: Mask, width: int) -> Mask:
    """Fill gaps between regions of up to twice ``width`` pixels."""
    padded = np.pad(mask, width)
    closed: Mask = ndimage.binary_closing(padded, NEIGHBOURS, iterations=width)
    return closed[width:-width, width:-width]
