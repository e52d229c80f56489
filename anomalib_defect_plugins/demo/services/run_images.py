"""Pictures of the test images of a run: the image, its ground-truth mask, its anomaly map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.report.images import overlay
from anomalib_defect_plugins.results.image_table import last_parts
from anomalib_defect_plugins.results.kept_images import MAPS, MASKS, UNREADABLE, open_kept_image
from anomalib_defect_plugins.results.record import FILE, RunRecord

TableRow = Mapping[str, Any]
"""Row of the table of images, by column."""


def read_test_image(record: RunRecord, row: TableRow, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Read the image as the data sets of this package do.

    Args:
        record: The run; not used.
        row: Row of the image.
        side: Maximum longer side in pixels; ``None`` keeps the size.

    Returns:
        Image, shape (H, W, 3), uint8.

    Raises:
        MissingDataError: If the file does not exist or is not an image.
    """
    del record
    path = Path(str(row["image_path"]))
    width, height = _size(row, side)
    try:
        if not path.is_file():  # reading a pipe or a device would not end
            raise FileNotFoundError(path)
        values, _, _ = read_image(path, (height, width))
    except UNREADABLE as error:
        msg = f"the image {last_parts(row)} cannot be read; put the data set back where it was in the benchmark"
        raise MissingDataError(msg) from error
    pixels: npt.NDArray[np.uint8] = (255 * values.transpose(1, 2, 0)).round().astype(np.uint8)
    return pixels


def read_mask(record: RunRecord, row: TableRow, side: int | None = None) -> npt.NDArray[np.bool_]:
    """Read the ground-truth mask, shape (H, W), bool; all false for a normal image.

    Raises:
        MissingDataError: If the mask of a defective image was not kept.
    """
    size = _size(row, side)
    if not row["label"]:
        return np.zeros(size[::-1], bool)
    mask = open_kept_image(record.folder / MASKS, str(row["map"]))
    if mask is None:
        msg = f"no mask of {last_parts(row)} is known; its data set has none, or the run kept none"
        raise MissingDataError(msg)
    return np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 127


def read_anomaly_map(record: RunRecord, row: TableRow, side: int | None = None) -> npt.NDArray[np.float32]:
    """Read the anomaly map, shape (H, W), float32, in the units of the scores; it was stored with 8 bits.

    Raises:
        MissingDataError: If it was not kept.
    """
    if record.map_range is None:
        msg = f"{FILE} of the run {record.key} does not contain the range of its maps; repeat the run"
        raise MissingDataError(msg)
    low, high = record.map_range
    values: npt.NDArray[np.float32] = np.asarray(_open_map(record, row, side), np.float32)
    scaled: npt.NDArray[np.float32] = np.float32(low) + values * np.float32((high - low) / 255)
    return scaled


def read_pred_mask(record: RunRecord, row: TableRow, side: int | None = None) -> npt.NDArray[np.bool_]:
    """Read the predicted mask, shape (H, W), bool: the anomaly map at or above the pixel threshold.

    Raises:
        MissingDataError: If the map was not kept, or the run has no pixel threshold.
    """
    threshold = record.thresholds.get("pixel")
    if threshold is None:
        msg = f"the run of {record.run.model.name} has no pixel threshold, so there is no predicted mask; see the map"
        raise MissingDataError(msg)
    mask = read_anomaly_map(record, row) >= threshold
    size = mask.shape[::-1] if side is None else _size(row, side)
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def read_overlay(record: RunRecord, row: TableRow, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Draw the anomaly map over the grey image, shape (H, W, 3), uint8.

    Raises:
        MissingDataError: If the map was not kept, or the image cannot be read.
    """
    anomaly_map = _open_map(record, row, None)
    image = Image.fromarray(read_test_image(record, row, side))
    return np.asarray(overlay(image, anomaly_map, image.size))


def _open_map(record: RunRecord, row: TableRow, side: int | None) -> Image.Image:
    anomaly_map = open_kept_image(record.folder / MAPS, str(row["map"]))
    if anomaly_map is None:
        name = record.run.model.name
        msg = f"the run of {name} kept no map of {last_parts(row)}; run the benchmark with 'keep: {{maps: true}}'"
        raise MissingDataError(msg)
    return anomaly_map if side is None else anomaly_map.resize(_size(row, side), Image.Resampling.BILINEAR)


def _size(row: TableRow, side: int | None) -> tuple[int, int]:
    """Return width and height in pixels, at most those of the file."""
    width, height = (max(1, int(row[name])) for name in ("width", "height"))
    scale = 1 if side is None else min(1, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
