"""The threshold from photos of good and bad parts: verdict, mask and list of defects agree, and errors are one line."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.calibration import COST, FALSE_ALARMS, MISSES, RuleFields, calibrate
from anomalib_defect_plugins.demo.services.predictions import (
    DisplayedPhoto,
    PhotoPrediction,
    PredictionSet,
    ThresholdRange,
)
from anomalib_defect_plugins.inference.run_model import Thresholds

FIELDS = RuleFields(FALSE_ALARMS, 5, 50, 1, 1, 1)
SIZE = (40, 40)


def prediction(name: str, peak: float, side: int = 10) -> PhotoPrediction:
    """A map of 0.1 with a square of ``peak``."""
    anomaly_map = np.full(SIZE, 0.1, np.float32)
    anomaly_map[5 : 5 + side, 5 : 5 + side] = peak
    photo = DisplayedPhoto(name, SIZE, SIZE, "data:,")
    return PhotoPrediction(photo, 0.99, anomaly_map, 0.01, Thresholds(0.5, 0.5), name)


GOOD = [prediction(f"good{number}", 0.2 + number / 100) for number in range(20)]
BAD = [prediction(f"bad{number}", 0.6 + number / 100) for number in range(5)]


@pytest.mark.parametrize("rule", [FALSE_ALARMS, MISSES, COST])
def test_every_rule_separates_what_can_be_separated(rule: str) -> None:
    choice = calibrate(replace(FIELDS, rule=rule), GOOD, BAD)
    assert choice.point.misses is not None
    assert choice.point.false_alarms is not None
    assert (choice.point.misses.count, choice.point.false_alarms.count) == (0, 0)
    assert 0.39 < choice.point.threshold <= 0.6


def test_good_parts_alone_are_enough_to_limit_false_alarms() -> None:
    choice = calibrate(FIELDS, GOOD, [])
    assert choice.point.misses is None
    assert choice.point.threshold > 0.39


@pytest.mark.parametrize("min_area", [1, 30])
def test_verdict_mask_and_list_agree_at_any_threshold(min_area: int) -> None:
    photos = [*GOOD, *BAD, prediction("small", 0.9, side=5)]
    shown = PredictionSet("m", "e", photos, 0.5, ThresholdRange(0, 1)).calibrated(0.5, min_area)
    for threshold in (0.15, 0.3, 0.5, 0.61, 0.95):
        for photo in shown.predictions:
            result = photo.apply_threshold(threshold)
            assert result.is_defective == bool(result.regions) == result.mask.any()
    small = shown.predictions[-1].apply_threshold(0.5)
    assert small.is_defective == (min_area == 1)  # it has 25 pixels


def test_a_region_of_interest_hides_what_is_outside_and_can_be_removed() -> None:
    shown = PredictionSet("m", "e", [prediction("a", 0.9)], 0.5, ThresholdRange(0, 1))
    region = np.zeros((20, 20), bool)
    region[10:] = True
    assert shown.count_defective(0.5) == 1
    inside = shown.within(region)
    assert inside.count_defective(0.5) == 0
    assert inside.within(None).count_defective(0.5) == 1
    added = PredictionSet("m", "e", [prediction("b", 0.9)], 0.5, ThresholdRange(0, 1)).like(inside, 0.4)
    assert (added.threshold, added.count_defective(0.4)) == (0.4, 0)


def test_orders_and_counts() -> None:
    photos = [replace(GOOD[0], score=0.3), replace(BAD[0], score=0.9), replace(GOOD[1], score=0.5)]
    shown = PredictionSet("m", "e", photos, 0.5, ThresholdRange(0, 1))
    assert shown.order("Most anomalous first") == [1, 2, 0]
    assert shown.order("As uploaded") == [0, 1, 2]
    assert shown.order("By name") == [1, 0, 2]
    assert shown.count_defective(0.5) == 2
    with pytest.raises(InvalidInputError, match="order is"):
        shown.order("x")


@pytest.mark.parametrize(
    ("fields", "good", "bad", "message"),
    [
        ({}, [], [], "there are no photos of parts yet"),
        ({}, [], BAD, "needs photos of good parts"),
        ({"rule": MISSES}, GOOD, [], "needs photos of defective parts"),
        ({"rule": COST}, GOOD, [], "needs photos of defective parts"),
        ({"rule": "x"}, GOOD, BAD, "rule is 'x'"),
        ({"percent": None}, GOOD, BAD, "highest share of errors is 'None'; use a number"),
        ({"percent": 0}, GOOD, BAD, "must be above 0"),
        ({"rule": COST, "cost_miss": -1}, GOOD, BAD, "cost of a miss is -1"),
        ({"min_area": 0}, GOOD, BAD, "minimum area is 0"),
        ({"min_area": 2000}, GOOD, BAD, "more than an image of 40x40"),
    ],
)
def test_faults_are_one_line(fields: dict[str, Any], good: Any, bad: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        calibrate(replace(FIELDS, **fields), good, bad)
