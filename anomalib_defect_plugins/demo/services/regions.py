"""Masks of an anomaly map for display, and the table of its regions."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.regions import NEIGHBOURS, REGION_COLUMNS, Region, find_regions, source_pixels

__all__ = ["REGION_COLUMNS", "Region", "enlarge_mask", "find_regions", "outline", "region_rows", "ring"]


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
