"""Example images of a run: best, median and worst by the margin of the score, with ground truth and anomaly map."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.report.images import _data_uri, overlay
from anomalib_defect_plugins.report.labels import three_significant
from anomalib_defect_plugins.results.image_table import read_image_table
from anomalib_defect_plugins.results.record import Record

SIDE = 224
"""Longer side of a picture in pixels."""


READ_ERRORS = (OSError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A picture of an example.

    Args:
        caption: What it shows.
        alt: What it shows, for who cannot see it.
        uri: The picture itself as a data URI; ``None`` if there is none, and ``alt`` says why.
    """

    caption: str
    alt: str
    uri: str | None


@dataclass(frozen=True)
class Example:
    """An image of the test set.

    Args:
        rank: ``best``, ``median``, ``worst`` or ``worst normal``.
        name: End of the image's path.
        about: Label, score and whether the verdict is right.
        pictures: Image, ground truth and map.
        proportions: Width / height of the pictures.
    """

    rank: str
    name: str
    about: str
    pictures: tuple[Picture, ...]
    proportions: float


def examples_of(record: Record) -> list[Example]:
    """Give the best, the median and the worst defective image of a run's test set, and the worst normal one.

    The margin is how far the score lies on the right side of the threshold: score - threshold for a defective image,
    threshold - score for a normal one. Without a threshold the middle between the mean scores of both takes its place.

    Returns:
        The examples, each image once; none if the run kept no maps, or its table cannot be read.
    """
    table = _with_maps(record.folder)
    if table.empty:
        return []
    threshold = record.thresholds.get("image", _middle(table))
    margin = np.where(table.label == 1, table.score - threshold, threshold - table.score)
    # Ties keep the order of the table, so that the report is the same each time.
    table = table.assign(margin=margin).sort_values("margin", ascending=False, kind="stable")
    return [_example(rank, row, record.folder, threshold) for rank, row in _choose(table).items()]


def _with_maps(folder: Path) -> pd.DataFrame:
    """Return the test images that have an anomaly map; none if the table cannot be read."""
    try:
        table = read_image_table(folder)
    except InvalidInputError:
        return pd.DataFrame()
    return table[np.isfinite(table.score) & (table.map != "")] if "map" in table else table[:0]


def _middle(table: pd.DataFrame) -> float:
    """Return the middle between the mean scores of defective and of normal images."""
    return float(table.groupby("label").score.mean().mean())


def _choose(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Choose rows of a table that is sorted by margin, the greatest first."""
    defective, normal = (table[table.label == label].to_dict("records") for label in (1, 0))
    places = {"best": 0, "median": len(defective) // 2, "worst": len(defective) - 1}
    # The later rank is the one that matters more: the worst of two images is not the median of them.
    by_place = {place: rank for rank, place in places.items() if defective}
    chosen = {rank: defective[place] for place, rank in sorted(by_place.items())}
    return chosen | ({"worst normal": normal[-1]} if normal else {})


def _example(rank: str, row: Mapping[str, Any], folder: Path, threshold: float) -> Example:
    label = "defective" if row["label"] == 1 else "normal"
    kind = row.get("defect_type", "")
    named = f"{label} ({kind})" if row["label"] == 1 and kind not in {"", "abnormal", "defective"} else label
    above = row["score"] > threshold
    relation = "above" if above else "not above"
    verdict = "right" if above == (row["label"] == 1) else "wrong"
    score = (
        f"score {three_significant(row['score'])}, {relation} the threshold {three_significant(threshold)}: {verdict}"
    )
    path = PurePath(row["image_path"].replace("\\", "/"))
    # The last parts only: the folders above say nothing of the image, and much of the machine.
    name = "/".join(path.parts[-3:])
    image, heat = _read(Path(row["image_path"]), "RGB"), _read_inside(folder / "maps", row["map"])
    size = _thumbnail_size(row, image or heat)
    about = f"{rank} image, {named}, {name}"
    truth = _truth(_read_inside(folder / "masks", row["map"]), size, row["label"] == 1, about)
    pictures = (
        _picture("image", f"image: {about}", image and image.resize(size, Image.Resampling.LANCZOS), "not readable"),
        truth,
        _picture("map", f"anomaly map on the {about}", heat and overlay(image, heat, size), "no map was kept"),
    )
    return Example(rank, name, f"{named}, {score}", pictures, size[0] / size[1])


def _read_inside(folder: Path, name: str) -> Image.Image | None:
    """Read a file of the run; a name that leads out of the folder is none."""
    return _read(folder / PurePath(name).name, "L") if name else None


def _read(path: Path, mode: str) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except READ_ERRORS:
        return None


def _thumbnail_size(row: Mapping[str, Any], image: Image.Image | None) -> tuple[int, int]:
    """Width and height in the proportions of the image."""
    try:
        width, height = int(row["width"]), int(row["height"])
    except (KeyError, ValueError):
        width, height = image.size if image else (1, 1)
    scale = SIDE / max(width, height, 1)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _truth(mask: Image.Image | None, size: tuple[int, int], defective: bool, about: str) -> Picture:
    missing = "no mask is known" if defective else "no defect"
    picture = mask and mask.resize(size, Image.Resampling.NEAREST)
    return _picture("ground truth", f"ground truth of the {about}", picture, missing, "PNG")


def _picture(caption: str, alt: str, image: Image.Image | None, missing: str, kind: str = "JPEG") -> Picture:
    return Picture(caption, alt if image else missing, _data_uri(image, kind) if image else None)
