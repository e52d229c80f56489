"""``images.csv`` of a run: one row for each test image."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_defect_plugins.core.errors import InvalidInputError

FILE = "images.csv"

RENAMED = {"verdict": "pred_label"}
"""Columns of older tables, and what they are called now."""

REQUIRED = ("image_path", "label", "score")


@dataclass(frozen=True)
class ImageRow:
    """A test image.

    Args:
        image_path: Image file.
        label: 1 for a defective image, 0 for a normal one.
        defect_type: Type of the defect.
        score: Score of the image, in the units of the model.
        pred_label: 1 if the model calls the image defective, 0 if not; empty if the model predicts no labels.
        width: Width of the file in pixels.
        height: Height of the file in pixels.
        map: File name of its anomaly map and of its mask; empty if none was kept.
    """

    image_path: str
    label: int
    defect_type: str
    score: float
    pred_label: int | str
    width: int
    height: int
    map: str


COLUMNS = tuple(field.name for field in fields(ImageRow))


def write_image_table(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write the table into the folder of a run."""
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def read_image_table(folder: Path, threshold: float | None = None) -> pd.DataFrame:
    """Read the table of a run.

    Args:
        folder: Folder of the run.
        threshold: Image threshold in the units of the scores, for images without a ``pred_label``.

    Returns:
        The columns of :class:`ImageRow` that the table has, in the order of the test: ``label`` bool, ``score`` float,
        the others text; ``pred_label`` bool: whether the model calls the image defective; ``is_labelled`` bool: whether
        that is known; ``missed`` bool: a defective image that it calls normal; ``false_alarm`` bool: a normal image
        that it calls defective.

    Raises:
        InvalidInputError: If the file is missing or is not such a table.
    """
    path = folder / FILE
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str).rename(columns=RENAMED)
        _check_columns(table.columns)
        label, score = pd.to_numeric(table.label) == 1, pd.to_numeric(table.score)
    except (OSError, ValueError) as error:  # ValueError: what pandas raises for a file that is no table
        msg = f"the table of images of the run {folder.name} cannot be read; repeat the run"
        raise InvalidInputError(msg) from error
    stated = pd.to_numeric(table.get("pred_label", pd.Series(index=table.index)), errors="coerce")
    by_score = score >= threshold if threshold is not None else pd.Series(data=False, index=score.index)
    pred_label, is_labelled = (stated == 1).where(stated.notna(), by_score), stated.notna() | (threshold is not None)
    table = table.assign(label=label, score=score, pred_label=pred_label, is_labelled=is_labelled)
    return table.assign(missed=label & ~pred_label & is_labelled, false_alarm=~label & pred_label)


def _check_columns(columns: "pd.Index[str]") -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        msg = f"there is no column {missing[0]}"
        raise ValueError(msg)


def last_parts(row: Mapping[str, Any]) -> str:
    """Return the last three parts of the image's path, which name it without the folders of the machine."""
    parts = str(row["image_path"]).replace("\\", "/").split("/")
    return "/".join(parts[-3:]).lstrip("/")
