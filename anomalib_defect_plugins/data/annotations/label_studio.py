"""Label Studio: one JSON file of tasks, with brush masks, polygons, ellipses and rectangles; https://labelstud.io."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.data.annotations.cvat import ellipse
from anomalib_defect_plugins.data.annotations.files import parsing, read_json
from anomalib_defect_plugins.data.annotations.polygons import Polygon
from anomalib_defect_plugins.data.annotations.regions import (
    AnnotatedImage,
    Bitmap,
    Box,
    Everywhere,
    Region,
    Shape,
    check_label,
)
from anomalib_defect_plugins.data.annotations.run_lengths import from_label_studio
from anomalib_defect_plugins.data.dataclasses import GOOD

KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "choices")
"""Types of results that are read."""


def is_label_studio(content: Any) -> bool:
    """Whether the content of a JSON file is Label Studio's."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "data" in content[0]


def read_label_studio(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read an export in the format JSON. Tasks that have no annotation, or a skipped one, are left out.

    Args:
        path: The file.
        faults: Gets an error for each task and result that is not valid.
    """
    images = []
    for number, task in enumerate(read_json(path)):
        with faults.collect(), parsing(path, f"task {number}"):
            done = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
            if done:
                # The first of several annotators.
                results = done[0]["result"]
                images.append(_image(task["data"], results, path, faults))
    return images


def _image(data: dict[str, Any], results: list[dict[str, Any]], path: Path, faults: Faults) -> AnnotatedImage:
    names = [value for value in data.values() if isinstance(value, str)]
    image = AnnotatedImage(str(data.get("image") or names[0]), path)
    for number, result in enumerate(results):
        with faults.collect(), parsing(path, f"result {number} of {image.name}"):
            image.regions.extend(_regions(result, image))
    return image


def _regions(result: dict[str, Any], image: AnnotatedImage) -> Iterator[Region]:
    kind = result["type"]
    if kind not in KINDS:
        return
    value = result["value"]
    if result.get("image_rotation"):
        msg = "the image was rotated in the tool; rotate the image itself"
        raise InvalidInputError(msg)
    labels = [label for label in value[kind] if kind != "choices" or label != GOOD]
    shape: Shape = Everywhere()
    if kind != "choices":
        size = (int(result["original_height"]), int(result["original_width"]))
        image.size = image.size or size
        if image.size != size:
            msg = f"it is of an image of {size[1]}x{size[0]} pixels, unlike others; annotate it again"
            raise InvalidInputError(msg)
        shape = _shape(kind, value, size)
    for label in labels:
        yield Region(check_label(label), shape)


def _shape(kind: str, value: dict[str, Any], size: Size) -> Shape:
    # Coordinates are percentages of the size.
    height, width = size[0] / 100, size[1] / 100
    if kind == "brushlabels":
        return Bitmap.of(from_label_studio(value["rle"], size))
    if kind == "polygonlabels":
        return Polygon(np.asarray(value["points"], float) * (width, height))
    left, top = float(value["x"]) * width, float(value["y"]) * height
    if kind == "rectanglelabels":
        return Box(left, top, left + float(value["width"]) * width, top + float(value["height"]) * height)
    radii = float(value["radiusX"]) * width, float(value["radiusY"]) * height
    return ellipse(left, top, *radii, angle=float(value.get("rotation") or 0))
