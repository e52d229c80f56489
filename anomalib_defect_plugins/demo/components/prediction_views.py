"""What the viewer shows of predictions: thumbnails with verdicts, the layers of an image, and tables of defects."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl

from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.demo.resources import render_template
from anomalib_defect_plugins.demo.services.defect_table import pred_label
from anomalib_defect_plugins.demo.services.predictions import (
    PhotoPrediction,
    PredictionSet,
    ThresholdResult,
    colour_scale,
    mask_outline_uri,
)

PAGE_SIZE = 24
"""Thumbnails per page."""

MAX_LISTED_REGIONS = 20
"""Regions listed on the page; the table to download has all of them."""

COLOURS = ", ".join(mpl.colors.to_hex(mpl.colormaps["inferno"](place / 8)) for place in range(9))
"""Colours of the legend."""

Marks = Mapping[str, str]
"""What a user calls images, ``good`` or ``bad``, by their source."""


def render_grid(predictions: PredictionSet, index: int, threshold: float, order: str, marks: Marks) -> str:
    """Render the page of thumbnails that contains an image.

    Args:
        predictions: All predictions.
        index: Index of the displayed image.
        threshold: Threshold in the units of the maps.
        order: Order of the images.
        marks: What the user calls the images.
    """
    indices = predictions.order(order)
    position = indices.index(index)
    first = position - position % PAGE_SIZE
    shown = enumerate(indices[first : first + PAGE_SIZE], start=first)
    return render_template(
        "prediction_grid.html",
        count=len(indices),
        defective=predictions.count_defective(threshold),
        marked=sum(prediction.source in marks for prediction in predictions.predictions),
        position=position,
        first=first,
        page_size=PAGE_SIZE,
        filters=f"{order}|{len(indices)}",
        thumbnails=[_thumbnail(place, predictions.predictions[each], threshold, marks) for place, each in shown],
    )


def _thumbnail(position: int, prediction: PhotoPrediction, threshold: float, marks: Marks) -> dict[str, Any]:
    return {
        "position": position,
        "name": prediction.photo.name,
        "uri": prediction.photo.thumbnail,
        "pred_label": pred_label(prediction.is_defective(threshold)),
        "score": f"{prediction.score:.2f}",
        "mark": marks.get(prediction.source, ""),
    }


def layer_values(
    predictions: PredictionSet, prediction: PhotoPrediction, result: ThresholdResult, threshold: float
) -> dict[str, Any]:
    """Return the properties of the layers that depend on the threshold: map, mask, numbered boxes and legend."""
    low, _, high = colour_scale(predictions.limits, threshold)[0]
    listed = result.regions[:MAX_LISTED_REGIONS]
    return {
        "mask": mask_outline_uri(result.mask),
        "anomaly_map": prediction.heat_map_uri(predictions.limits, threshold),
        "boxes": render_template("region_boxes.html", regions=listed, size=prediction.photo.size),
        "low": f"{round(low, 2) + 0.0:.2f}",
        "high": f"{round(high, 2) + 0.0:.2f}",
        "threshold": f"{threshold:.2f}",
        "alt": _alt_text(prediction, result),
    }


def _alt_text(prediction: PhotoPrediction, result: ThresholdResult) -> str:
    """Describe an image. The page does not escape the text, so it must not contain the file name."""
    height, width = prediction.photo.size
    label = pred_label(result.is_defective)
    regions = counted(len(result.regions), "region")
    return f"image of {width} by {height} pixels, {label}, {regions} at or above the threshold"


def render_prediction(predictions: PredictionSet, prediction: PhotoPrediction, threshold: float) -> str:
    """Render the verdict on an image."""
    return render_template(
        "prediction.html",
        prediction=prediction,
        pred_label=pred_label(prediction.is_defective(threshold)),
        score_threshold=prediction.score_threshold(threshold),
        engine=predictions.engine,
    )


def render_regions(result: ThresholdResult) -> str:
    """Render the table of defects."""
    listed = result.regions[:MAX_LISTED_REGIONS]
    return render_template("regions.html", regions=listed, count=len(result.regions))
