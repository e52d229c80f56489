"""Polygons to masks as the COCO tools draw them, and masks to polygons; the adapter of pycocotools, an extra."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import approximate_polygon

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.annotations.regions import MAX_PERIMETER, Marks, Shape, check_coordinates

Points = npt.NDArray[np.float64]
"""Corners of a polygon, shape (N, 2): x and y in pixels, with pixel i from i to i + 1."""


@dataclass(frozen=True, eq=False)
class Polygon(Shape):
    """A polygon, drawn as pycocotools does, and so CVAT and the metrics of COCO.

    Args:
        points: Its corners.
    """

    points: Points

    def __post_init__(self) -> None:
        points = np.asarray(self.points, float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            msg = f"a polygon has {points.size / 2:g} points; it needs 3 or more"
            raise InvalidInputError(msg)
        check_coordinates(points)
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(1)
        if steps.sum() > MAX_PERIMETER:
            msg = f"a polygon is {steps.sum():.3g} pixels long, more than {MAX_PERIMETER:.0e}; simplify it"
            raise InvalidInputError(msg)

    def draw(self, marks: Marks) -> None:
        """Mark the pixels inside."""
        coco: Any = _pycocotools()
        height, width = marks.shape
        (rle,) = coco.frPyObjects([np.asarray(self.points, float).ravel().tolist()], height, width)
        marks |= coco.decode(rle).astype(bool)


def _pycocotools() -> ModuleType:
    try:
        from pycocotools import mask  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        msg = "polygons need pycocotools; install it with pip install 'anomalib-defect-plugins[annotations]'"
        raise InvalidInputError(msg) from error
    return cast(ModuleType, mask)


def outlines(marks: Marks, tolerance: float = 0.0) -> list[Points] | None:
    """Trace the outline of a region along the edges of its pixels, so that :class:`Polygon` draws the same pixels.

    Args:
        marks: Mask of one region, shape (H, W), bool.
        tolerance: Distance in pixels by which the outline may deviate, for fewer points.

    Returns:
        Polygons of its 4-connected parts; ``None`` if one has a hole, which polygons cannot have.
    """
    parts, _ = ndimage.label(marks)
    polygons = []
    for part, at in enumerate(ndimage.find_objects(parts), start=1):
        inside = np.pad(parts[at] == part, 1)
        filled = ndimage.binary_fill_holes(inside)
        if tolerance == 0 and (filled != inside).any():
            return None
        points = _trace(filled) + np.array([at[1].start - 1, at[0].start - 1])
        polygons.append(_simplified(points, tolerance))
    return polygons


def _trace(inside: Marks) -> Points:
    """Return the corners of a 4-connected region without holes, padded by a pixel, clockwise on the screen."""
    edges: dict[tuple[int, int], tuple[int, int]] = {}
    # Pixel before which the region ends; start and end of that edge of the pixel.
    for down, across, start, end in (
        (-1, 0, (0, 0), (1, 0)),
        (0, 1, (1, 0), (1, 1)),
        (1, 0, (1, 1), (0, 1)),
        (0, -1, (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(inside & ~np.roll(inside, (-down, -across), (0, 1)))
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            edges[x + start[0], y + start[1]] = (x + end[0], y + end[1])
    first = point = min(edges)
    path = [point]
    while (point := edges[point]) != first:
        path.append(point)
    points = np.array(path, float)
    turns = np.any(np.roll(points, -1, 0) - points != points - np.roll(points, 1, 0), axis=1)
    return points[turns]


def _simplified(points: Points, tolerance: float) -> Points:
    if tolerance <= 0 or len(points) < 5:
        return points
    closed: Points = approximate_polygon(np.vstack([points, points[:1]]), tolerance)[:-1]  # type: ignore[no-untyped-call]
    return closed if len(closed) >= 3 else points
