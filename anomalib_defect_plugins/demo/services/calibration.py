"""The threshold of a model from photos of good and defective parts, by the rules of operating points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.operating_points import Costs
from anomalib_defect_plugins.demo.services.predictions import PhotoPrediction
from anomalib_defect_plugins.inference.choose_threshold import Choice, Rule, choose
from anomalib_defect_plugins.inference.labelled_images import LabelledImage

FALSE_ALARMS, MISSES, COST = "Limit false alarms", "Limit misses", "Lowest cost"

RULES = (FALSE_ALARMS, MISSES, COST)
"""Rules of a threshold, in words."""

MAX_AREA = 10**7
"""Maximum of the minimum area of a defect, in pixels."""


@dataclass(frozen=True)
class RuleFields:
    """Fields of the page that define a rule.

    Args:
        rule: One of ``RULES``.
        percent: Maximum rate of the errors that the rule limits, in percent.
        cost_miss: Cost of a defective part that passes.
        cost_false_alarm: Cost of a good part that is rejected.
        defect_percent: Share of defective parts in production, in percent.
        min_area: Minimum area of a defect in pixels.
    """

    rule: str
    percent: Any
    cost_miss: Any
    cost_false_alarm: Any
    defect_percent: Any
    min_area: Any

    def as_rule(self) -> Rule:
        """Return the rule.

        Raises:
            InvalidInputError: If a field is invalid.
        """
        check_one_of("rule", self.rule, RULES)
        if self.rule == COST:
            miss = _number("cost of a miss", self.cost_miss)
            false_alarm = _number("cost of a false alarm", self.cost_false_alarm)
            share = _number("share of defective parts", self.defect_percent) / 100
            return Rule(costs=Costs(miss, false_alarm, share))
        share = _number("highest share of errors", self.percent) / 100
        return Rule(max_misses=share) if self.rule == MISSES else Rule(max_false_alarms=share)

    @property
    def area(self) -> int:
        """Minimum area of a defect.

        Raises:
            InvalidInputError: If it is invalid.
        """
        area = _number("minimum area", self.min_area)
        if not 1 <= area <= MAX_AREA:
            msg = f"the minimum area is {area:g}; use a number of pixels from 1 to {MAX_AREA}"
            raise InvalidInputError(msg)
        return round(area)


def calibrate(fields: RuleFields, good: Sequence[PhotoPrediction], bad: Sequence[PhotoPrediction]) -> Choice:
    """Choose a threshold of the map, such that verdict, mask and list of defects agree.

    Args:
        fields: The rule.
        good: Predictions on good parts.
        bad: Predictions on defective parts.

    Raises:
        InvalidInputError: If a field is invalid, or the rule needs photos that there are none of.
    """
    rule, area = fields.as_rule(), fields.area
    photos = [*good, *bad]
    if not photos:
        msg = "there are no photos of parts yet; add good ones, or mark the images above as good or defective"
        raise InvalidInputError(msg)
    if rule.max_misses is None and not good:
        msg = f"{fields.rule!r} needs photos of good parts; add some, or limit the misses"
        raise InvalidInputError(msg)
    if rule.max_false_alarms is None and not bad:
        msg = f"{fields.rule!r} needs photos of defective parts; add some, or limit the false alarms"
        raise InvalidInputError(msg)
    scores = np.array([photo.by_regions(0.0, area).score for photo in photos], np.float32)
    images = [LabelledImage(photo.photo.name, is_bad=number >= len(good)) for number, photo in enumerate(photos)]
    point = choose(rule, images, scores)
    return Choice(rule, point, "values of the map", images, scores, pixel=True, min_area=area)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        msg = f"the {name} is {str(value)[:20]!r}; use a number"
        raise InvalidInputError(msg)
    return float(value)
