"""Regions of interest: one mask for all images, a folder with a mask for each, or polygons drawn in LabelMe."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES
from anomalib_defect_plugins.core.mask_io import Marks, read_mask

MAX_POINTS = 1_000_000
"""Maximum number of points of all polygons of a file."""

MAX_FOLDERS = 4
"""Maximum number of the last parts of an image's path by which its region is found."""

LAYOUT = "a mask, a LabelMe file (.json) with polygons or rectangles, or a folder with a mask for each image"


class RegionMasks:
    """The regions of interest of images.

    Args:
        path: Mask in any image format, in which the region is drawn as defects are in other masks, neither black nor
            transparent; LabelMe file with polygons or rectangles; or folder with such files for each image.

    Attributes:
        fixed: The region of all images, shape (H, W); ``None`` if each image has its own.

    Raises:
        MissingDataError: If the file or folder does not exist.
        InvalidInputError: If the file cannot be read, or the region is empty.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.exists():
            msg = f"roi_mask {path} not found; pass {LAYOUT}"
            raise MissingDataError(msg)
        self.fixed = None if self.path.is_dir() else read_region(self.path)

    def __call__(self, image: Path | str) -> Marks:
        """Return the region of an image, which is drawn at any size.

        Args:
            image: Path of the image. In a folder its region has the same name, with any suffix for masks, below as
                many of the last folders of the path as there are: of ``test/bent/000.png``, that is
                ``test/bent/000.png``, or else ``bent/000.png`` or ``000.png``.

        Raises:
            MissingDataError: If a folder has no region of the image.
        """
        if self.fixed is not None:
            return self.fixed
        whole = Path(image).with_suffix("")
        parts = [part for part in whole.parts if part != whole.anchor]
        for start in range(max(0, len(parts) - MAX_FOLDERS), len(parts)):
            file = self.path.joinpath(*parts[start:])
            for suffix in (".json", *IMAGE_SUFFIXES):
                if (region := file.with_name(file.name + suffix)).is_file():
                    return _cached_region(region)
        msg = f"roi_mask {self.path} has no region of {image}; add {Path(image).stem}.png, or pass one mask for all"
        raise MissingDataError(msg)


@lru_cache(maxsize=8)
def _cached_region(path: Path) -> Marks:
    return read_region(path)


def read_region(path: Path) -> Marks:
    """Read a region, shape (H, W), from a mask or a LabelMe file.

    Raises:
        InvalidInputError: If the file cannot be read, or the region is empty.
    """
    try:
        region = _draw_polygons(path) if path.suffix.lower() == ".json" else read_mask(path)
    except InvalidInputError:
        raise
    except Exception as error:  # decoders raise errors of many types on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"cannot read roi_mask {path} ({reason}); pass {LAYOUT}"
        raise InvalidInputError(msg) from error
    if not region.any():
        msg = f"roi_mask {path} marks nothing, so that nothing would be inspected; draw the region in white"
        raise InvalidInputError(msg)
    return region


def _draw_polygons(path: Path) -> Marks:
    """Draw the shapes of a LabelMe file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not {"shapes", "imageWidth", "imageHeight"} <= set(content):
        msg = f"roi_mask {path} has no shapes, imageWidth and imageHeight; draw polygons in LabelMe"
        raise InvalidInputError(msg)
    size = int(content["imageWidth"]), int(content["imageHeight"])
    if min(size) < 1 or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or 1 << 30):
        msg = f"roi_mask {path} is for images of {size[0]}x{size[1]} pixels; correct imageWidth and imageHeight"
        raise InvalidInputError(msg)
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    points = 0
    for shape in content["shapes"]:
        outline = _outline(shape, size, path)
        points += len(outline)
        if points > MAX_POINTS:
            msg = f"roi_mask {path} has more than {MAX_POINTS} points; draw simpler polygons, or pass a mask"
            raise InvalidInputError(msg)
        draw.polygon([(x, y) for x, y in outline], fill=1)
    return np.asarray(canvas)


def _outline(shape: Any, size: tuple[int, int], path: Path) -> list[tuple[float, float]]:
    """Return the corners of a shape, moved into the image."""
    kind = shape.get("shape_type", "polygon")
    corners = np.asarray(shape["points"], float)
    is_drawn = (kind == "polygon" and len(corners) > 2) or (kind == "rectangle" and len(corners) == 2)
    if not is_drawn or corners.shape[1:] != (2,) or not np.isfinite(corners).all():
        msg = f"roi_mask {path} has a {kind} of {len(corners)} points; use polygons and rectangles of finite numbers"
        raise InvalidInputError(msg)
    if kind == "rectangle":
        (left, top), (right, bottom) = corners
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return [(float(x), float(y)) for x, y in corners.clip(0, np.array(size))]


def resize_region(region: Marks, height: int, width: int) -> Marks:
    """Resize a region to another size: a pixel belongs to it if its centre does.

    Raises:
        InvalidInputError: If no pixel is left.
    """
    resized = resize_rows(region, height, width, 0, height)
    if not resized.any():
        msg = f"roi_mask has no pixel left at {width}x{height}; enlarge the region, or use a larger image_size"
        raise InvalidInputError(msg)
    return resized


def resize_rows(region: Marks, height: int, width: int, top: int, bottom: int) -> Marks:
    """Return rows ``top`` to ``bottom``, end excluded, of a region that is resized as by :func:`resize_region`."""
    rows = (2 * np.arange(top, bottom) + 1) * region.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * region.shape[1] // (2 * width)
    resized: Marks = region[rows[:, None], columns]
    return resized
