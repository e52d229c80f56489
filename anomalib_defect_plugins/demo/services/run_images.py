"""Pictures of the test images of a run: the image, its mask, its anomaly map."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.report.images import overlay
from anomalib_defect_plugins.results.folder import RECORD
from anomalib_defect_plugins.results.record import Record

Row = Mapping[str, Any]
"""A row of the table of images."""

READ_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What Pillow raises for a file that is no whole image, and for one that is too large."""


def name_of(row: Row) -> str:
    """Name an image by the last parts of its path: the folders above say nothing of it, and much of the machine."""
    return "/".join(PurePath(str(row["image_path"]).replace("\\", "/")).parts[-3:]).lstrip("/")


def read_photo(record: Record, row: Row, side: int | None = None) -> np.ndarray:
    """Read the image, as the data sets of this package do.

    Args:
        record: The run; not looked at.
        row: The row of the image.
        side: Longer side in pixels; by default as it is.

    Returns:
        (H, W, 3), uint8.

    Raises:
        MissingDataError: The file is gone, or is no image.
    """
    from anomalib_defect_plugins.core.image_io import read_image

    del record
    path = Path(str(row["image_path"]))
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise FileNotFoundError(path)
        values, _, _ = read_image(path, _size(row, side)[::-1])
    except READ_ERRORS as error:
        msg = f"the image {name_of(row)} cannot be read; put the data set back where it was in the benchmark"
        raise MissingDataError(msg) from error
    return (255 * values.transpose(1, 2, 0)).round().astype(np.uint8)


def read_mask(record: Record, row: Row, side: int | None = None) -> np.ndarray:
    """Read the ground truth, (H, W), bool; all false for a normal image.

    Raises:
        MissingDataError: The mask of a defective image was not kept.
    """
    size = _size(row, side)
    if not row["label"]:
        return np.zeros(size[::-1], bool)
    mask = _open_grey(record, "masks", row)
    if mask is None:
        msg = f"no mask of {name_of(row)} is known; its data set has none, or the run kept none"
        raise MissingDataError(msg)
    return np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 127


def read_map(record: Record, row: Row, side: int | None = None) -> np.ndarray:
    """Read the anomaly map, (H, W), float32, in the units of the scores, as exact as 8 bits are.

    Raises:
        MissingDataError: It was not kept.
    """
    low, high = _range(record)
    values = np.asarray(_grey_map(record, row, side), np.float32)
    return low + values * np.float32((high - low) / 255)


def read_found(record: Record, row: Row, side: int | None = None) -> np.ndarray:
    """Give the mask that the model finds, (H, W), bool: where the map is above the threshold of pixels.

    Raises:
        MissingDataError: The map was not kept, or there is no threshold.
    """
    threshold = record.thresholds.get("pixel")
    if threshold is None:
        msg = f"the run of {record.model.name} has no threshold of pixels, so it finds no mask; look at the map"
        raise MissingDataError(msg)
    found = read_map(record, row) > threshold
    size = found.shape[::-1] if side is None else _size(row, side)
    return np.asarray(Image.fromarray(found).resize(size, Image.Resampling.NEAREST))


def read_overlay(record: Record, row: Row, side: int | None = None) -> np.ndarray:
    """Lay the map over the image in grey, (H, W, 3), uint8.

    Raises:
        MissingDataError: The map was not kept, or the image cannot be read.
    """
    heat = _grey_map(record, row, None)
    image = Image.fromarray(read_photo(record, row, side))
    return np.asarray(overlay(image, heat, image.size))


def _grey_map(record: Record, row: Row, side: int | None) -> Image.Image:
    heat = _open_grey(record, "maps", row)
    if heat is None:
        msg = f"the run of {record.model.name} kept no map of {name_of(row)}; make it with 'keep: {{maps: true}}'"
        raise MissingDataError(msg)
    return heat if side is None else heat.resize(_size(row, side), Image.Resampling.BILINEAR)


def _open_grey(record: Record, folder: str, row: Row) -> Image.Image | None:
    """Open a file of the run; a name or a link that leads out of its folder is none."""
    name, place = str(row["map"]), (record.folder / folder).resolve()
    path = (place / PurePath(name).name).resolve()
    if not name or path.parent != place or not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            return image.convert("L")
    except READ_ERRORS:
        return None


def _size(row: Row, side: int | None) -> tuple[int, int]:
    """Width and height in pixels; never more than those of the file."""
    width, height = (max(1, int(row[name])) for name in ("width", "height"))
    scale = 1 if side is None else min(1, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _range(record: Record) -> tuple[float, float]:
    """Give what black and white of the maps stand for."""
    try:
        low, high = json.loads((record.folder / RECORD).read_text(encoding="utf-8"))["map_range"]
        return float(low), float(high)
    except (OSError, LookupError, TypeError, ValueError) as error:
        msg = f"{RECORD} of the run {record.key} does not say the range of its maps; make the run again"
        raise MissingDataError(msg) from error
