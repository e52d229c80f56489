"""CVAT for images 1.1: one XML file; https://docs.cvat.ai/docs/manual/advanced/xml_format/."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.data.annotations.files import parsing, read_xml
from anomalib_defect_plugins.data.annotations.polygons import Polygon
from anomalib_defect_plugins.data.annotations.regions import (
    AnnotatedImage,
    Bitmap,
    Box,
    Everywhere,
    Region,
    Shape,
    check_coordinates,
    check_label,
)
from anomalib_defect_plugins.data.annotations.run_lengths import from_runs

ELLIPSE_CORNERS = 72
"""Corners of the polygon that an ellipse is drawn as."""

SHAPES = ("polygon", "mask", "box", "ellipse", "polyline", "points", "tag")
"""Elements of an image that are read; skeletons and cuboids mark no defects."""


def read_cvat(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read a file of CVAT.

    Args:
        path: The file.
        faults: Gets an error for each image and shape that is not valid.
    """
    root = read_xml(path)
    if root.tag != "annotations" or root.find("track") is not None:
        msg = f"{path} is not in the format 'CVAT for images 1.1'; export it in that format"
        raise InvalidInputError(msg)
    images: list[AnnotatedImage] = []
    for number, element in enumerate(root.iter("image")):
        with faults.collect(), parsing(path, f"image {number}"):
            size = (int(element.attrib["height"]), int(element.attrib["width"]))
            images.append(AnnotatedImage(element.attrib["name"], path, size, list(_regions(element, path, faults))))
    return images


def _regions(image: ET.Element, path: Path, faults: Faults) -> Iterator[Region]:
    for number, element in enumerate(image):
        if element.tag in SHAPES:
            with faults.collect(), parsing(path, f"shape {number} of image {image.attrib['name']!r}"):
                yield Region(check_label(element.attrib["label"]), _shape(element))


def _shape(element: ET.Element) -> Shape:
    value = element.attrib
    if element.tag == "polygon":
        return Polygon(_points(value["points"]))
    if element.tag == "mask":
        size = (int(value["height"]), int(value["width"]))
        # Runs go along the rows of the part of the image.
        marks = from_runs([int(count) for count in value["rle"].split(",")], size, "C")
        return Bitmap.of(marks, int(value["left"]), int(value["top"]))
    if element.tag == "ellipse":
        x, y, radius_x, radius_y = (float(value[name]) for name in ("cx", "cy", "rx", "ry"))
        return ellipse(x, y, radius_x, radius_y, float(value.get("rotation", 0)))
    if element.tag == "box":
        corners = np.array([[float(value["xtl"]), float(value["ytl"])], [float(value["xbr"]), float(value["ybr"])]])
        return Box(*corners.ravel().tolist())
    if element.tag == "tag":
        return Everywhere()
    # Lines and points have no width.
    points = _points(value["points"])
    return Box(*points.min(0).tolist(), *points.max(0).tolist())


def _points(text: str) -> npt.NDArray[np.float64]:
    return np.array([[float(value) for value in pair.split(",")] for pair in text.split(";") if pair])


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> Polygon:
    """Return an ellipse as a polygon.

    Args:
        x: Centre in pixels.
        y: Centre in pixels.
        radius_x: Radius along x before the rotation, in pixels.
        radius_y: Radius along y.
        angle: Rotation in degrees, clockwise on the screen.
    """
    check_coordinates([x, y, radius_x, radius_y, angle])
    around = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
    across, down = radius_x * np.cos(around), radius_y * np.sin(around)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return Polygon(np.stack([x + across * cos - down * sin, y + across * sin + down * cos], 1))
