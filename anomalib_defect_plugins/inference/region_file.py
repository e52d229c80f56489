"""Regions that an inspection has found, as a file of COCO for labelling tools."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data.annotations.coco_writer import NEIGHBOURS, CocoFile
from anomalib_defect_plugins.data.annotations.polygons import outlines
from anomalib_defect_plugins.inference.pictures import common_folder, picture_path

LABEL = "defect"
"""Category of the regions."""

PIXEL_THRESHOLD = 0.5
"""Threshold of normalised maps, as anomalib applies it."""

TOLERANCE = 0.7
"""Distance in pixels of the map by which outlines deviate, so that they have few points to correct."""

COLUMNS = ["path", "pred_label", "width", "height"]


def write_regions(table: Path, maps: Path, out: Path, root: Path | None = None, threshold: float | None = None) -> int:
    """Write the regions of the images that were found defective. Other images are listed without any.

    Args:
        table: Table of ``anomalib-defects inspect``.
        maps: Folder of its maps.
        out: The file to write.
        root: Folder that the names of images are relative to; by default they stay as in the table.
        threshold: Map value from which a pixel is defective; by default that of normalised maps.

    Returns:
        Number of regions.

    Raises:
        MissingDataError: If a map is missing.
        InvalidInputError: If the table or a map is not valid, maps are not normalised and there is no threshold, or the
            file cannot be written.
    """
    coco = CocoFile()
    folder = common_folder(row["path"] for row in _rows(table, ["path"]))
    for row in _rows(table, COLUMNS):
        if row["width"] is None or row["pred_label"] is None:
            continue
        coco.add_image(_name(row["path"], root), (row["height"], row["width"]))
        if row["pred_label"]:
            anomaly_map, limit = _read_map(maps / picture_path(row["path"], folder), threshold)
            _add_regions(coco, anomaly_map, limit, (row["height"], row["width"]))
    coco.write(out)
    return len(coco.annotations)


def _rows(table: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except FileNotFoundError as error:
        msg = f"{table} does not exist; pass the table that 'anomalib-defects inspect' has written"
        raise MissingDataError(msg) from error
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        msg = f"{table} is no table of 'anomalib-defects inspect' ({reason}); pass the one that it has written"
        raise InvalidInputError(msg) from error


def _name(path: str, root: Path | None) -> str:
    if root is not None and Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return path


def _read_map(png: Path, threshold: float | None) -> tuple[npt.NDArray[np.float32], float]:
    """Read a map, shape (h, w), and return the threshold of its pixels."""
    tiff = png.with_suffix(".tiff")
    file = png if png.is_file() else tiff
    try:
        with Image.open(file) as image:
            values = np.asarray(image, np.float32)
    except FileNotFoundError as error:
        msg = f"the map {png} does not exist; pass the --maps folder of the inspection"
        raise MissingDataError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"the map {file} cannot be read ({error}); inspect its image again"
        raise InvalidInputError(msg) from error
    if threshold is None and file == tiff:
        msg = f"the map {file} is not normalised; pass the value from which a pixel is defective (--region-threshold)"
        raise InvalidInputError(msg)
    limit = PIXEL_THRESHOLD if threshold is None else threshold
    return (values / np.float32(255) if file == png else values), limit


def _add_regions(coco: CocoFile, anomaly_map: npt.NDArray[np.float32], limit: float, size: tuple[int, int]) -> None:
    labels, _ = ndimage.label(anomaly_map >= limit, NEIGHBOURS)
    scale = np.array([size[1] / labels.shape[1], size[0] / labels.shape[0]])
    for number, at in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[at] == number
        polygons = outlines(inside, TOLERANCE) or []
        corner = np.array([at[1].start, at[0].start])
        score = float(anomaly_map[at][inside].mean())
        coco.add_polygons(LABEL, [(points + corner) * scale for points in polygons], score=round(score, 6))
