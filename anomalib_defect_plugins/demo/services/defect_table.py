"""Verdicts in words, and the table of the defects of several images."""

import csv
import io
from typing import Any

from anomalib_defect_plugins.core.regions import REGION_COLUMNS, region_rows
from anomalib_defect_plugins.demo.services.predictions import PhotoPrediction, PredictionSet

TABLE_COLUMNS = ("image", "pred_label", "score", "threshold", "seconds", "defect", *REGION_COLUMNS)


def pred_label(is_defective: bool | None) -> str:
    """Format a verdict."""
    if is_defective is None:
        return "no threshold"
    return "defective" if is_defective else "normal"


def write_table(predictions: PredictionSet, threshold: float) -> bytes:
    """Return the defects of all images as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TABLE_COLUMNS)
    for prediction in predictions.predictions:
        writer.writerows(_table_rows(prediction, threshold))
    return text.getvalue().encode()


def _table_rows(prediction: PhotoPrediction, threshold: float) -> list[list[Any]]:
    result = prediction.apply_threshold(threshold)
    name, label = _escape_formula(prediction.photo.name), pred_label(result.is_defective)
    image = [name, label, f"{prediction.score:.6g}", f"{threshold:.6g}", f"{prediction.seconds:.4f}"]
    if not result.regions:
        return [image + [""] * (1 + len(REGION_COLUMNS))]
    return [[*image, number, *row] for number, row in enumerate(region_rows(result.regions), start=1)]


def _escape_formula(name: str) -> str:
    """Return a name that spreadsheets do not interpret as a formula."""
    return f"'{name}" if name[:1] in "=+-@" else name
