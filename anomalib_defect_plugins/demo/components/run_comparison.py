"""Two runs on the same test images, side by side: the images that match a filter, and one of them as HTML."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.demo.resources import render_template
from anomalib_defect_plugins.demo.services.predictions import jpeg_uri
from anomalib_defect_plugins.demo.services.results_store import ResultsStore, RunInfo
from anomalib_defect_plugins.report.labels import three_significant
from anomalib_defect_plugins.report.tested_images import SAW_TEST_LABELS, threshold_origin
from anomalib_defect_plugins.results.image_table import last_parts

IMAGE_SIDE, THUMBNAIL_SIDE = 384, 88
"""Longer side of images and thumbnails, in pixels."""

PAGE_SIZE = 12
"""Thumbnails per page."""

IMAGE_FILTERS = {
    "all": "All images",
    "missed": "Missed defects",
    "false_alarm": "False alarms",
    "wrong": "Any error",
}
"""Label of each choice of images."""

ERROR_SOURCES = {"either": "Either model", "a": "Model A", "b": "Model B", "both": "Both models"}
"""Label of each choice of models whose errors count."""

BACKGROUND_BRIGHTNESS = 0.35
"""Brightness of the image behind a mask."""

TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = (255, 255, 255), (230, 159, 0), (86, 180, 233)
"""Colours of pixels of a predicted mask, distinguishable for colour-blind readers."""

Picture = npt.NDArray[np.uint8]
"""Pixels of a picture, shape (H, W, 3)."""


class ScoreRange(NamedTuple):
    """Lowest and highest score of a run and its threshold, which define the scale of the score bar."""

    low: float
    high: float
    threshold: float | None

    def percent(self, value: float) -> float:
        """Return the position of a value on the score bar, in percent."""
        fraction = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(100 * min(1.0, max(0.0, fraction)), 1)


class EncodedImage(NamedTuple):
    """An image as a data URI, or the reason why it is missing."""

    uri: str | None
    error: str = ""


@dataclass(frozen=True)
class RunPair:
    """Two runs and the test images that they share.

    Args:
        store: Store of the runs.
        a: First run.
        b: Second run; may be the same.
        show: Images to show, a key of ``IMAGE_FILTERS``.
        errors_of: Models whose errors count, a key of ``ERROR_SOURCES``.

    Raises:
        InvalidInputError: If a choice is invalid or a table of images cannot be read.
    """

    store: ResultsStore
    a: RunInfo
    b: RunInfo
    show: str = "all"
    errors_of: str = "either"

    def __post_init__(self) -> None:
        """Check the choices."""
        check_one_of("images to show", self.show, IMAGE_FILTERS)
        check_one_of("errors to count", self.errors_of, ERROR_SOURCES)

    @cached_property
    def images(self) -> pd.DataFrame:
        """Images of both runs, in the order of the first; columns end in ``_a`` and ``_b``."""
        tables = []
        for run in (self.a, self.b):
            table = self.store.images(run.key)
            # A data set may list a file twice: its n-th row in one run is matched to its n-th row in the other.
            occurrence = table.groupby("image_path").cumcount()
            tables.append(table.assign(index=np.arange(len(table)), occurrence=occurrence))
        return tables[0].merge(tables[1], on=["image_path", "occurrence"], suffixes=("_a", "_b"))

    @cached_property
    def selected(self) -> pd.DataFrame:
        """The images to show."""
        if self.show == "all":
            return self.images
        kinds = ("missed", "false_alarm") if self.show == "wrong" else (self.show,)
        errors = {side: self.images[[f"{kind}_{side}" for kind in kinds]].any(axis=1) for side in "ab"}
        errors |= {"either": errors["a"] | errors["b"], "both": errors["a"] & errors["b"]}
        return self.images[errors[self.errors_of]]

    def score_range(self, run: RunInfo) -> ScoreRange:
        """Return the range of the scores of a run."""
        scores = self.store.images(run.key).score
        values = [*scores[np.isfinite(scores)], *([] if run.threshold is None else [run.threshold])]
        return ScoreRange(min(values, default=0.0), max(values, default=1.0), run.threshold)


def render_comparison(pair: RunPair, position: Any = 0) -> str:
    """Render one of the selected images and the thumbnails of its page.

    Args:
        pair: The runs and the selected images.
        position: Position of the image among the selected ones, from 0.

    Raises:
        InvalidInputError: If the position is invalid.
    """
    selected = pair.selected
    if len(selected) and (type(position) is not int or not 0 <= position < len(selected)):
        msg = f"image {str(position)[:20]!r} is not among those shown; choose a number from 0 to {len(selected) - 1}"
        raise InvalidInputError(msg)
    first = position - position % PAGE_SIZE if len(selected) else 0
    return render_template(
        "run_comparison.html",
        pair=pair,
        count=len(selected),
        total=len(pair.images),
        position=position,
        page_size=PAGE_SIZE,
        first=first,
        filters="|".join((pair.a.key, pair.b.key, pair.show, pair.errors_of)),
        thumbnails=[_thumbnail(pair, place) for place in range(first, min(first + PAGE_SIZE, len(selected)))],
        image=_image(pair, selected.iloc[position].to_dict()) if len(selected) else None,
        filtered=pair.show != "all",
    )


def _thumbnail(pair: RunPair, position: int) -> dict[str, Any]:
    row = pair.selected.iloc[position].to_dict()
    image = _encode(lambda: pair.store.picture(pair.a.key, int(row["index_a"]), "image", THUMBNAIL_SIDE))
    return {
        "position": position,
        "image": image,
        "name": last_parts(row),
        "outcomes": [_outcome(row, side) for side in "ab"],
    }


def _image(pair: RunPair, row: dict[str, Any]) -> dict[str, Any]:
    """Collect the values of the template for an image."""
    index = int(row["index_a"])
    defect_type = str(row.get("defect_type_a", ""))
    label = "defective" if row["label_a"] else "normal"
    if row["label_a"] and defect_type not in {"", "abnormal", "defective"}:
        label = f"{label} ({defect_type})"
    return {
        "name": last_parts(row),
        "label": label,
        "size": f"{row['width_a']} × {row['height_a']} pixels",
        "photo": _encode(lambda: pair.store.picture(pair.a.key, index, "image", IMAGE_SIDE)),
        "ground_truth": _encode(lambda: _draw_ground_truth(pair.store, pair.a, index)),
        "sides": [_side(pair, run, row, side) for run, side in ((pair.a, "a"), (pair.b, "b"))],
        "proportions": f"{row['width_a']} / {row['height_a']}",
    }


def _side(pair: RunPair, run: RunInfo, row: dict[str, Any], side: str) -> dict[str, Any]:
    """Collect the values of the template for the prediction of one run."""
    index, score, scale = int(row[f"index_{side}"]), float(row[f"score_{side}"]), pair.score_range(run)
    return {
        "letter": side.upper(),
        "run": run,
        "overlay": _encode(lambda: pair.store.picture(run.key, index, "overlay", IMAGE_SIDE)),
        "mask": _encode(lambda: _draw_predicted_mask(pair.store, run, index)),
        "score": three_significant(score),
        "score_percent": scale.percent(score),
        "threshold": None if scale.threshold is None else three_significant(scale.threshold),
        "saw_labels": threshold_origin(run.record) == SAW_TEST_LABELS,
        "threshold_percent": None if scale.threshold is None else scale.percent(scale.threshold),
        "outcome": _outcome(row, side),
    }


def _outcome(row: dict[str, Any], side: str) -> dict[str, str]:
    if not row[f"is_labelled_{side}"]:
        return {"kind": "unknown", "pred_label": "no threshold", "text": "no threshold"}
    pred_label = "defective" if row[f"pred_label_{side}"] else "normal"
    if row[f"missed_{side}"]:
        return {"kind": "missed", "pred_label": pred_label, "text": "missed defect"}
    if row[f"false_alarm_{side}"]:
        return {"kind": "false-alarm", "pred_label": pred_label, "text": "false alarm"}
    return {"kind": "correct", "pred_label": pred_label, "text": "correct"}


def _draw_ground_truth(store: ResultsStore, run: RunInfo, index: int) -> Picture:
    """Draw the ground truth over the image."""
    mask = store.picture(run.key, index, "mask", IMAGE_SIDE)
    picture = _background(store, run, index, mask.shape)
    picture[mask] = TRUE_POSITIVE
    return picture


def _draw_predicted_mask(store: ResultsStore, run: RunInfo, index: int) -> Picture:
    """Draw the predicted mask over the image, coloured by its agreement with the ground truth if that is known."""
    predicted = store.picture(run.key, index, "pred_mask", IMAGE_SIDE)
    picture = _background(store, run, index, predicted.shape)
    picture[predicted] = TRUE_POSITIVE
    with contextlib.suppress(UserError):
        mask = store.picture(run.key, index, "mask", IMAGE_SIDE)
        picture[predicted & ~mask] = FALSE_POSITIVE
        picture[mask & ~predicted] = FALSE_NEGATIVE
    return picture


def _background(store: ResultsStore, run: RunInfo, index: int, shape: tuple[int, ...]) -> Picture:
    """Return the image, darkened and grey; black if it cannot be read."""
    try:
        photo = store.picture(run.key, index, "image", IMAGE_SIDE)
    except UserError:
        return np.zeros((*shape, 3), np.uint8)
    return np.repeat((BACKGROUND_BRIGHTNESS * photo.mean(2, keepdims=True)).astype(np.uint8), 3, axis=2)


def _encode(read: Callable[[], Picture]) -> EncodedImage:
    """Encode a picture as JPEG; a user error while reading it becomes the reason why it is missing."""
    try:
        return EncodedImage(jpeg_uri(Image.fromarray(read())))
    except UserError as error:
        return EncodedImage(None, str(error))
