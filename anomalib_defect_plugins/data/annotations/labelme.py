"""LabelMe: a JSON file for each image; https://github.com/wkentaro/labelme."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.data.annotations.files import parsing, read_json
from anomalib_defect_plugins.data.annotations.regions import (
    MAX_PERIMETER,
    AnnotatedImage,
    Bitmap,
    Box,
    Everywhere,
    Marks,
    Region,
    Shape,
    check_coordinates,
    check_label,
)
from anomalib_defect_plugins.data.annotations.run_lengths import check_size

LINE_WIDTH = 10
POINT_RADIUS = 5
"""Width of lines and radius of points in pixels, as LabelMe draws them."""

LEAST_POINTS = {"polygon": 3, "line": 2, "linestrip": 2, "point": 1, "points": 1, "circle": 2, "oriented_rectangle": 4}
"""Lowest number of points of each shape that is drawn."""


@dataclass(frozen=True)
class Drawing(Shape):
    """A shape, drawn by Pillow as LabelMe's ``shape_to_mask`` does.

    Args:
        kind: Key of ``LEAST_POINTS``.
        points: Pairs of x and y in pixels.
    """

    kind: str
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = np.asarray(self.points, float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < LEAST_POINTS[self.kind]:
            msg = f"a {self.kind} needs {LEAST_POINTS[self.kind]} points or more of two coordinates"
            raise InvalidInputError(msg)
        check_coordinates(points)
        if np.abs(np.diff(points, axis=0)).sum() > MAX_PERIMETER:
            msg = f"a {self.kind} is longer than {MAX_PERIMETER:.0e} pixels; simplify it"
            raise InvalidInputError(msg)

    def draw(self, marks: Marks) -> None:
        """Mark the pixels of the shape, of which the outline is a part."""
        image = Image.fromarray(np.zeros(marks.shape, np.uint8))
        canvas = ImageDraw.Draw(image)
        if self.kind in {"line", "linestrip"}:
            canvas.line(list(self.points), fill=1, width=LINE_WIDTH)
        elif self.kind == "circle":
            (x, y), other = self.points[:2]
            _disk(canvas, x, y, math.dist((x, y), other))
        elif self.kind in {"point", "points"}:
            for x, y in self.points:
                _disk(canvas, x, y, POINT_RADIUS)
        else:
            canvas.polygon(list(self.points), outline=1, fill=1)
        marks |= np.asarray(image, bool)


def _disk(canvas: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read the file of an image.

    Args:
        path: The file.
        faults: Gets an error for each shape that is not valid.
    """
    content = read_json(path)
    image = AnnotatedImage("", path)
    with faults.collect(), parsing(path, "the image"):
        image.name = str(content["imagePath"])
        height, width = content.get("imageHeight"), content.get("imageWidth")
        image.size = None if height is None or width is None else (int(height), int(width))
        for name in (name for name, value in (content.get("flags") or {}).items() if value):
            # A flag is a label of the whole image.
            image.regions.append(Region(check_label(name), Everywhere()))
    for number, shape in enumerate(content["shapes"]):
        with faults.collect(), parsing(path, f"shape {number}"):
            image.regions.append(Region(check_label(shape["label"]), _shape(shape)))
    return [image]


def _shape(shape: dict[str, Any]) -> Shape:
    kind = shape.get("shape_type") or "polygon"
    points = tuple((float(x), float(y)) for x, y in shape["points"])
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return Box(left, top, right, bottom)
    if kind == "mask":
        check_coordinates(np.asarray(points))
        return _bitmap(shape["mask"], int(points[0][0]), int(points[0][1]))
    if kind not in LEAST_POINTS:
        msg = f"the shape {kind!r} is not read; use a polygon"
        raise InvalidInputError(msg)
    return Drawing(kind, points)


def _bitmap(text: str, left: int, top: int) -> Bitmap:
    """Read a mask of a part of the image, a PNG in base 64."""
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
        check_size(image.size)
        return Bitmap.of(np.asarray(image.convert("L")) > 0, left, top)
