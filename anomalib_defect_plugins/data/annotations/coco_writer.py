"""Writing of COCO files, which labelling tools open for correction."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.data.annotations.polygons import Points, outlines
from anomalib_defect_plugins.data.annotations.regions import AnnotatedImage, Marks, Region
from anomalib_defect_plugins.data.annotations.run_lengths import to_runs

NEIGHBOURS = np.ones((3, 3))
"""Structuring element of 8-connectivity."""


class CocoFile:
    """The content of a file of COCO."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories: dict[str, int] = {}

    def add_image(self, name: str, size: Size) -> None:
        """Add an image, which the following annotations belong to.

        Args:
            name: Its path, as the labelling tool knows it.
            size: Its height and width.
        """
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": size[1], "height": size[0]})

    def add_mask(self, label: str, marks: Marks) -> None:
        """Add an annotation of the same pixels: polygons, or run lengths if it has a hole.

        Args:
            label: Its category.
            marks: Mask of the image, shape (H, W), bool; at least one pixel is marked.
        """
        parts = outlines(marks)
        if parts is not None:
            self.add_polygons(label, parts)
            return
        (down, across), *_ = ndimage.find_objects(marks.astype(np.uint8))
        box = [across.start, down.start, across.stop - across.start, down.stop - down.start]
        runs = {"counts": to_runs(marks), "size": list(marks.shape)}
        # Tools take run lengths from annotations of a crowd only.
        self._add(label, runs, box, float(marks.sum()), iscrowd=1)

    def add_polygons(self, label: str, polygons: Sequence[Points], **fields: float) -> None:
        """Add an annotation of polygons.

        Args:
            label: Its category.
            polygons: Corners, shape (N, 2), of each.
            fields: Further fields, such as ``score``.
        """
        corners = np.concatenate(polygons)
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        outline = [np.round(points, 2).ravel().tolist() for points in polygons]
        self._add(label, outline, [left, top, right - left, bottom - top], sum(map(_area, polygons)), 0, **fields)

    def add_box(self, label: str, marks: Marks) -> None:
        """Add an annotation of a rectangle around the marked pixels, whose outline is not known."""
        rows, columns = np.nonzero(marks.any(1))[0], np.nonzero(marks.any(0))[0]
        if len(rows):
            left, top = int(columns[0]), int(rows[0])
            box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
            self._add(label, [], box, float(box[2] * box[3]))

    def _add(self, label: str, outline: Any, box: list[Any], area: float, iscrowd: int = 0, **fields: float) -> None:
        category = self.categories.setdefault(label, len(self.categories) + 1)
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": len(self.images),
                "category_id": category,
                "segmentation": outline,
                "bbox": box,
                "area": area,
                "iscrowd": iscrowd,
                **fields,
            }
        )

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            InvalidInputError: If it cannot be written.
        """
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in self.categories.items()]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        try:
            write_text(path, json.dumps(content) + "\n")
        except OSError as error:
            msg = f"cannot write {path} ({error.strerror}); choose another file"
            raise InvalidInputError(msg) from error


def write_coco(images: Iterable[tuple[str, Size, AnnotatedImage]], path: Path) -> None:
    """Write annotated images, with the pixels that they mark.

    Args:
        images: Path, as the labelling tool knows it, height and width, and annotations of each image.
        path: The file.

    Raises:
        InvalidInputError: If a region does not fit its image, or the file cannot be written.
    """
    coco = CocoFile()
    for name, size, image in images:
        coco.add_image(name, size)
        for region in image.regions:
            _add_region(coco, region, image.draw(region, size))
    coco.write(path)


def _add_region(coco: CocoFile, region: Region, marks: Marks) -> None:
    if not region.has_outline:
        coco.add_box(region.label, marks)
    elif marks.any():
        coco.add_mask(region.label, marks)


def components(marks: Marks) -> list[Marks]:
    """Separate a mask into its 8-connected regions, each a mask of the same shape."""
    labels, number = ndimage.label(marks, NEIGHBOURS)
    return [labels == part for part in range(1, number + 1)]


def _area(points: Points) -> float:
    """Return the area of a polygon (shoelace formula)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
