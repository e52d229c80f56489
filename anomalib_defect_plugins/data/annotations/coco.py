"""COCO: one JSON file of images, categories and annotations; https://cocodataset.org/#format-data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.data.annotations.files import parsing, read_json
from anomalib_defect_plugins.data.annotations.polygons import Polygon
from anomalib_defect_plugins.data.annotations.regions import AnnotatedImage, Bitmap, Box, Region, Shape, check_label
from anomalib_defect_plugins.data.annotations.run_lengths import from_coco_string, from_runs


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is COCO's."""
    return isinstance(content, dict) and all(isinstance(content.get(name), list) for name in ("images", "annotations"))


def read_coco(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read a file of COCO.

    Args:
        path: The file.
        faults: Gets an error for each image and annotation that is not valid.
    """
    content = read_json(path)
    images: dict[Any, AnnotatedImage] = {}
    for number, image in enumerate(content["images"]):
        with faults.collect(), parsing(path, f"image {number}"):
            key, name = image["id"], str(image["file_name"])
            size = (int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None
            if images.setdefault(key, AnnotatedImage(name, path, size)).name != name:
                msg = f"the id {key!r} is also that of {images[key].name}; make ids unique"
                raise InvalidInputError(msg)
    labels: dict[Any, Any] = {}
    with faults.collect(), parsing(path, "categories"):
        labels = {category["id"]: category["name"] for category in content.get("categories") or []}
    for number, annotation in enumerate(content["annotations"]):
        with faults.collect(), parsing(path, f"annotation {number}"):
            image = _known(images, annotation["image_id"], "an image")
            label = check_label(_known(labels, annotation["category_id"], "a category"))
            image.regions.extend(Region(label, shape) for shape in _shapes(annotation, image.size))
    return list(images.values())


def _known(entries: dict[Any, Any], key: Any, what: str) -> Any:
    if key not in entries:
        msg = f"there is no {what.split()[-1]} with the id {key!r}; correct the id, or remove the annotation"
        raise InvalidInputError(msg)
    return entries[key]


def _shapes(annotation: dict[str, Any], size: Size | None) -> Iterator[Shape]:
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        height, width = (int(side) for side in outline["size"])
        if size not in {None, (height, width)}:
            msg = f"its mask is of {width}x{height} pixels, unlike its image; export it again"
            raise InvalidInputError(msg)
        counts = outline["counts"]
        runs = from_coco_string(counts) if isinstance(counts, str) else counts
        yield Bitmap.of(from_runs(runs, (height, width), "F"))
    elif outline:
        for points in outline:
            yield Polygon(np.asarray(points, float).reshape(-1, 2))
    else:
        left, top, across, down = (float(value) for value in annotation["bbox"])
        yield Box(left, top, left + across, top + down)
