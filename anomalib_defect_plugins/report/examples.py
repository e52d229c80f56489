"""Example images of a run: best, median and worst by the margin of the score, with masks and anomaly map."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.report.images import data_uri, overlay
from anomalib_defect_plugins.report.labels import three_significant
from anomalib_defect_plugins.results.image_table import last_parts, read_image_table
from anomalib_defect_plugins.results.kept_images import MAPS, MASKS, PRED_MASKS, UNREADABLE, open_kept_image
from anomalib_defect_plugins.results.record import RunRecord

SIDE = 224
"""Longer side of a picture in pixels."""

ENCODING: dict[str, dict[str, Any]] = {"JPEG": {"quality": 82}, "PNG": {"optimize": True}}
"""Options of the encoder by file format."""


@dataclass(frozen=True)
class Picture:
    """A picture of an example.

    Args:
        caption: Caption of the picture.
        alt: Description for readers who cannot see it.
        uri: The picture as a data URI; ``None`` if it is missing, in which case ``alt`` is the reason.
    """

    caption: str
    alt: str
    uri: str | None


@dataclass(frozen=True)
class Example:
    """An image of the test set.

    Args:
        rank: ``best``, ``median``, ``worst`` or ``worst normal``.
        name: Last parts of the path of the image.
        about: Label and score, and whether the prediction is right.
        pictures: Image, ground truth, anomaly map and predicted mask.
        proportions: Width / height of the pictures.
    """

    rank: str
    name: str
    about: str
    pictures: tuple[Picture, ...]
    proportions: float


def select_examples(record: RunRecord) -> list[Example]:
    """Select the best, the median and the worst defective image of the test set of a run, and the worst normal one.

    The margin is the distance of the score from the threshold, positive on the right side: score - threshold for a
    defective image, threshold - score for a normal one. Without a threshold, the mean of the mean scores of both
    classes is used.

    Returns:
        The examples, each image once; none if the run has no maps, or its table is not readable.
    """
    table = _with_maps(record.folder)
    if table.empty:
        return []
    known = record.thresholds.get("image")
    threshold = _between_classes(table) if known is None else known
    margin = np.where(table.label == 1, table.score - threshold, threshold - table.score)
    # Ties keep the order of the table, so that equal results give equal reports.
    table = table.assign(margin=margin).sort_values("margin", ascending=False, kind="stable")
    return [_example(rank, row, record) for rank, row in _select(table).items()]


def scaled_threshold(record: RunRecord) -> float | None:
    """Return the threshold of pixels where 0 is the lowest and 1 the highest value of the maps of a run."""
    threshold, (low, high) = record.thresholds.get("pixel"), record.map_range or (0.0, 0.0)
    return None if threshold is None or high <= low else (threshold - low) / (high - low)


def _with_maps(folder: Path) -> pd.DataFrame:
    """Read the test images that have an anomaly map; none if the table is not readable."""
    try:
        table = read_image_table(folder)
    except InvalidInputError:
        return pd.DataFrame()
    return table[np.isfinite(table.score) & (table.map != "")] if "map" in table else table[:0]


def _between_classes(table: pd.DataFrame) -> float:
    """Return the mean of the mean scores of defective and of normal images."""
    return float(table.groupby("label").score.mean().mean())


def _select(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Select rows, by rank, of a table that is sorted by margin in descending order."""
    defective, normal = (table[table.label == label].to_dict("records") for label in (1, 0))
    places = {"best": 0, "median": len(defective) // 2, "worst": len(defective) - 1}
    # Of equal places the last rank counts: with two images, the second is the worst and not the median.
    by_place = {place: rank for rank, place in places.items() if defective}
    selected = {rank: defective[place] for place, rank in sorted(by_place.items())}
    return selected | ({"worst normal": normal[-1]} if normal else {})


def _example(rank: str, row: Mapping[str, Any], record: RunRecord) -> Example:
    folder = record.folder
    label, name = _label(row), last_parts(row)
    photo, anomaly_map = _read_photo(Path(row["image_path"])), open_kept_image(folder / MAPS, row["map"])
    size = _thumbnail_size(row, photo or anomaly_map)
    about = f"{rank} image, {label}, {name}"
    thumbnail = photo and photo.resize(size, Image.Resampling.LANCZOS)
    heat = anomaly_map and overlay(photo, anomaly_map, size, scaled_threshold(record))
    found = open_kept_image(folder / PRED_MASKS, row["map"])
    truth = open_kept_image(folder / MASKS, row["map"])
    pictures = (
        _picture("image", f"image: {about}", thumbnail, "not readable"),
        _mask("ground truth", truth, size, about, "no mask is known" if row["label"] == 1 else "no defect"),
        _picture("map", f"anomaly map on the {about}", heat, "no map was kept"),
        _mask("predicted mask", found, size, about, "not kept: no threshold, or an older run"),
    )
    return Example(rank, name, f"{label}, {_score(row, record.thresholds.get('image'))}", pictures, size[0] / size[1])


def _label(row: Mapping[str, Any]) -> str:
    if row["label"] != 1:
        return "normal"
    kind = row.get("defect_type", "")
    return "defective" if kind in {"", "abnormal", "defective"} else f"defective ({kind})"


def _score(row: Mapping[str, Any], threshold: float | None) -> str:
    score = three_significant(row["score"])
    if threshold is None:
        return f"score {score}, no threshold"
    above = row["score"] >= threshold
    relation = "at or above" if above else "below"
    outcome = "right" if above == (row["label"] == 1) else "wrong"
    return f"score {score}, {relation} the threshold {three_significant(threshold)}: {outcome}"


def _read_photo(path: Path) -> Image.Image | None:
    try:
        pixels, _, _ = read_image(path)
    except UNREADABLE:
        return None
    return Image.fromarray((255 * pixels.transpose(1, 2, 0)).round().astype(np.uint8))


def _thumbnail_size(row: Mapping[str, Any], image: Image.Image | None) -> tuple[int, int]:
    """Return width and height in the proportions of the image."""
    try:
        width, height = int(row["width"]), int(row["height"])
    except (KeyError, ValueError):
        width, height = image.size if image else (1, 1)
    scale = SIDE / max(width, height, 1)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _mask(caption: str, mask: Image.Image | None, size: tuple[int, int], about: str, missing: str) -> Picture:
    picture = mask and mask.resize(size, Image.Resampling.NEAREST)
    return _picture(caption, f"{caption} of the {about}", picture, missing, "PNG")


def _picture(caption: str, alt: str, image: Image.Image | None, missing: str, kind: str = "JPEG") -> Picture:
    return Picture(caption, alt, data_uri(image, kind, **ENCODING[kind])) if image else Picture(caption, missing, None)
