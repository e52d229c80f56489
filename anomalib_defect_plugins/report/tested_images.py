"""The test images behind the figures of a run, its errors on them, and where its thresholds come from."""

import json
from typing import NamedTuple

import pandas as pd

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.results.image_table import read_image_table
from anomalib_defect_plugins.results.record import RunRecord

SAW_TEST_LABELS = "test labels ‡"
"""Origin of a threshold that was chosen on the test images, whose error rates are too low."""

ORIGINS = {"none": "training images", "synthetic": "synthetic defects"}
"""Origins by the mode of the validation split."""

SAME_AS_TEST = '"val_split_mode": "same_as_test"'


class ErrorRates(NamedTuple):
    """Shares of errors at the threshold of a run.

    Args:
        misses: Share of defective images that the model calls normal.
        false_alarms: Share of good images that it calls defective.
    """

    misses: float
    false_alarms: float


def threshold_origin(record: RunRecord) -> str:
    """Return what the thresholds of a run were chosen on: test labels, validation images, or nothing."""
    if all(value is None for value in record.thresholds.values()):
        return "none"
    if "threshold" in record.split:
        return str(record.split["threshold"])
    is_test = SAME_AS_TEST in json.dumps(record.run.to_dict()).lower()
    return origin_of("same_as_test" if is_test else record.split.get("validation"))


def origin_of(validation: str | None, post_processor: object = None) -> str:
    """Return what thresholds are chosen on.

    Args:
        validation: Mode of the validation split; ``None`` if it is not known.
        post_processor: Post-processor; one that needs no labels has a ``threshold_origin``.
    """
    without_labels = getattr(post_processor, "threshold_origin", None)
    if without_labels is not None:
        return str(without_labels)
    if validation == "same_as_test":
        return SAW_TEST_LABELS
    return "not recorded" if validation is None else ORIGINS.get(validation, "validation images")


def count_images(record: RunRecord) -> tuple[int, int] | None:
    """Return the numbers of good and of defective test images; ``None`` if the table of images is not readable."""
    try:
        images = read_image_table(record.folder)
    except InvalidInputError:
        return None
    defective = int(images.label.sum())
    return len(images) - defective, defective


def labelled_images(record: RunRecord) -> pd.DataFrame | None:
    """Read the table of images; ``None`` if it is not readable, or the model predicts no labels."""
    try:
        images = read_image_table(record.folder, record.thresholds.get("image"))
    except InvalidInputError:
        return None
    return images if len(images) and images.is_labelled.all() else None


def error_rates(record: RunRecord) -> ErrorRates | None:
    """Return the shares of errors; ``None`` without labels, or without images of both kinds."""
    images = labelled_images(record)
    if images is None or images.label.all() or not images.label.any():
        return None
    return ErrorRates(float(images.missed[images.label].mean()), float(images.false_alarm[~images.label].mean()))
