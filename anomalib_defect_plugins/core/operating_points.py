"""Thresholds chosen by the rates of missed defects and false alarms, with exact confidence intervals.

A threshold at an order statistic of n scores has an error rate with a Beta distribution, whatever the distribution of
the scores is (Wilks, Determination of sample sizes for setting tolerance limits, Annals of Mathematical Statistics
1941). Therefore the interval of Clopper and Pearson (Biometrika 1934) stays exact if a rule fixes the number of errors
before it has seen the scores, as :func:`limit_misses` and :func:`limit_false_alarms` do. A rule that compares all
thresholds, such as :func:`minimize_cost`, needs a band that holds at all of them at once. NumPy and SciPy only.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincinv, nctdtrit, ndtri

from anomalib_defect_plugins.core.errors import InvalidInputError

CONFIDENCE = 0.95
"""Confidence level of intervals and promises."""

MARGIN = 1e-3
"""Largest distance of a threshold from the score that defines it, as a part of the range of all scores."""

BAND_DRAWS = 4000
"""Simulated samples that determine the level of a band; the standard error of its coverage is 0.35 %."""

BAND_RATIO = 1.05
"""Ratio of successive counts at which a band of a large sample is evaluated; the counts between use wider limits."""

Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Rate:
    """A rate of errors, and its confidence interval.

    Args:
        count: Number of errors.
        total: Number of images that could have been errors.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Share of errors."""
        return self.count / self.total


@dataclass(frozen=True)
class Costs:
    """What errors cost, in any one unit, and how often a defect occurs in production.

    Args:
        miss: Cost of a defective part that passes.
        false_alarm: Cost of a good part that is rejected.
        defect_rate: Share of defective parts in production, above 0 and below 1.

    Raises:
        InvalidInputError: If a number is out of range.
    """

    miss: float
    false_alarm: float
    defect_rate: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, number in (("miss", self.miss), ("false alarm", self.false_alarm)):
            if not (math.isfinite(number) and number > 0):
                msg = f"the cost of a {name} is {number}; it must be above 0"
                raise InvalidInputError(msg)
        check_share("the defect rate", self.defect_rate)

    def per_part(self, miss_rate: float | Scores, false_alarm_rate: float | Scores) -> float | Scores:
        """Return the expected cost of a part of the production."""
        missed = self.defect_rate * self.miss * miss_rate
        return missed + (1 - self.defect_rate) * self.false_alarm * false_alarm_rate


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it means for production.

    Args:
        threshold: Score from which an image is defective, exact in single precision.
        misses: Rate of defective images below it; ``None`` without defective images.
        false_alarms: Rate of good images at or above it; ``None`` without good images.
        confidence: Confidence level of the intervals.
        promise: Upper limit of the rate that the rule limits, which holds with that confidence; ``None`` if it limits
            none.
    """

    threshold: float
    misses: Rate | None
    false_alarms: Rate | None
    confidence: float
    promise: float | None = None


def check_share(name: str, share: float) -> None:
    """Check that a share is above 0 and below 1.

    Raises:
        InvalidInputError: If it is not; the message begins with ``name``.
    """
    if not 0 < share < 1:
        msg = f"{name} is {share}; it must be above 0 and below 1, such as 0.02 for 2 %"
        raise InvalidInputError(msg)


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> Rate:
    """Compute the exact confidence interval of a rate (Clopper and Pearson, 1934).

    Args:
        count: Number of errors.
        total: Number of images, at least 1.
        confidence: Confidence level.
    """
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Rate(count, total, low, high)


def upper_limit(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided upper confidence limit of a rate: with no error among 27 images, 10.5 %."""
    return float(betaincinv(count + 1, total - count, confidence)) if count < total else 1.0


def images_needed(share: float, confidence: float = CONFIDENCE) -> int:
    """Return how many images without an error show that the rate is at most ``share``: 299 for 1 %."""
    return math.ceil(math.log1p(-confidence) / math.log1p(-share))


def errors_allowed(total: int, share: float, confidence: float = CONFIDENCE) -> int | None:
    """Return the maximum number of errors among ``total`` images that shows a rate of at most ``share``.

    Returns:
        The number; ``None`` if there are too few images for any, see :func:`images_needed`.
    """
    counts = np.arange(min(total, math.ceil(share * total) + 1))
    allowed = np.flatnonzero(betaincinv(counts + 1, total - counts, confidence) <= share)
    return int(allowed[-1]) if len(allowed) else None


def limit_misses(good: Scores, bad: Scores, share: float, confidence: float = CONFIDENCE) -> OperatingPoint:
    """Choose the highest threshold that misses at most a share of all defects, with the stated confidence.

    If there are too few defective images to promise that, the threshold is just below the lowest of them.

    Args:
        good: Scores of good images, shape (N,); may be empty.
        bad: Scores of defective images, shape (M,), at least one.
        share: Maximum rate of missed defects, above 0 and below 1.
        confidence: Confidence level.
    """
    check_share("the maximum rate of misses", share)
    ordered = np.sort(bad)
    count = errors_allowed(len(ordered), share, confidence) or 0
    threshold = _just_below(ordered[count], good, bad)
    return _point(threshold, good, bad, confidence, upper_limit(count, len(ordered), confidence))


def limit_false_alarms(good: Scores, bad: Scores, share: float, confidence: float = CONFIDENCE) -> OperatingPoint:
    """Choose the lowest threshold with at most a share of false alarms among all good parts; a tolerance limit.

    If there are too few good images to promise that, the threshold is just above the highest of them.

    Args:
        good: Scores of good images, shape (N,), at least one.
        bad: Scores of defective images, shape (M,); may be empty.
        share: Maximum rate of false alarms, above 0 and below 1.
        confidence: Confidence level.
    """
    check_share("the maximum rate of false alarms", share)
    ordered = np.sort(good)[::-1]
    count = errors_allowed(len(ordered), share, confidence) or 0
    threshold = _just_above(ordered[count], good, bad)
    return _point(threshold, good, bad, confidence, upper_limit(count, len(ordered), confidence))


def minimize_cost(good: Scores, bad: Scores, costs: Costs, confidence: float = CONFIDENCE) -> OperatingPoint:
    """Choose the threshold with the lowest expected cost.

    As the scores themselves choose the number of errors, the intervals are those of a band, which is wider.

    Args:
        good: Scores of good images, shape (N,), at least one.
        bad: Scores of defective images, shape (M,), at least one.
        costs: The costs.
        confidence: Confidence level.
    """
    thresholds, misses, false_alarms = error_counts(good, bad)
    cost = np.asarray(costs.per_part(misses / len(bad), false_alarms / len(good)))
    threshold = float(thresholds[int(cost.argmin())])
    return evaluate(threshold, good, bad, confidence, chosen_here=True)


def evaluate(
    threshold: float, good: Scores, bad: Scores, confidence: float = CONFIDENCE, chosen_here: bool = False
) -> OperatingPoint:
    """Compute misses and false alarms at a threshold.

    Args:
        threshold: Score from which an image is defective.
        good: Scores of good images, shape (N,); may be empty.
        bad: Scores of defective images, shape (M,); may be empty.
        confidence: Confidence level.
        chosen_here: Whether the threshold depends on these scores in any way; the intervals are wider then.
    """
    point = _point(threshold, good, bad, confidence, None)
    if not chosen_here:
        return point
    misses, false_alarms = (rate and widened(rate, confidence) for rate in (point.misses, point.false_alarms))
    return OperatingPoint(threshold, misses, false_alarms, confidence)


def error_counts(good: Scores, bad: Scores) -> tuple[Scores, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Count the errors at all thresholds that differ in a verdict.

    Args:
        good: Scores of good images, shape (N,).
        bad: Scores of defective images, shape (M,).

    Returns:
        Thresholds in ascending order, in the middle between two scores or beyond all of them, shape (K,); and for each
        the number of defective images below it, and of good ones at or above it.
    """
    scores = np.unique(np.concatenate([good, bad]).astype(np.float32))
    middles = _single(scores[:-1], scores[1:])
    margin = MARGIN * (float(scores[-1]) - float(scores[0]))
    last = max(float(scores[-1]) + margin, float(np.nextafter(scores[-1], np.float32(np.inf))))
    thresholds = np.concatenate([scores[:1], middles, [np.float32(last)]]).astype(np.float64)
    misses = np.searchsorted(np.sort(bad), thresholds, "left")
    false_alarms = len(good) - np.searchsorted(np.sort(good), thresholds, "left")
    return thresholds, misses, false_alarms


def normal_tolerance_limit(
    values: Scores, share: float, confidence: float = CONFIDENCE, size: int | None = None
) -> float:
    """Return a limit that at most a share of a normal distribution exceeds, from a few values of it.

    The factor is that of the non-central t distribution (Owen, Factors for one-sided tolerance limits, 1963): 7.66
    standard deviations for 3 values and 2.40 for 20, at 5 % and 95 % confidence.

    Args:
        values: At least two values, shape (N,).
        share: Share of the distribution above the limit.
        confidence: Confidence level.
        size: Number of values that count as independent; all by default.
    """
    size = len(values) if size is None else size
    factor = float(nctdtrit(size - 1, ndtri(1 - share) * math.sqrt(size), confidence)) / math.sqrt(size)
    return float(np.mean(values) + factor * np.std(values, ddof=1))


def _point(threshold: float, good: Scores, bad: Scores, confidence: float, promise: float | None) -> OperatingPoint:
    missed, rejected = int((bad < threshold).sum()), int((good >= threshold).sum())
    misses = clopper_pearson(missed, len(bad), confidence) if len(bad) else None
    false_alarms = clopper_pearson(rejected, len(good), confidence) if len(good) else None
    return OperatingPoint(threshold, misses, false_alarms, confidence, promise)


def _just_below(score: float, good: Scores, bad: Scores) -> float:
    """Return a threshold that a score reaches, and no lower one does."""
    everything = np.concatenate([good, bad])
    lower = everything[everything < score]
    distance = MARGIN * float(np.ptp(everything))
    if len(lower):
        distance = min(distance, (float(score) - float(lower.max())) / 2)
    threshold = np.float32(float(score) - distance)
    is_separate = not len(lower) or threshold > lower.max()
    return float(threshold) if is_separate else float(np.float32(score))


def _just_above(score: float, good: Scores, bad: Scores) -> float:
    """Return a threshold that a score does not reach, and all higher ones do."""
    everything = np.concatenate([good, bad])
    higher = everything[everything > score]
    distance = MARGIN * float(np.ptp(everything))
    if len(higher):
        distance = min(distance, (float(higher.min()) - float(score)) / 2)
    threshold = np.float32(float(score) + distance)
    return float(max(threshold, np.nextafter(np.float32(score), np.float32(np.inf))))


def _single(lower: Scores, upper: Scores) -> Scores:
    """Return the middle of two scores in single precision, above the lower one."""
    middle = ((lower.astype(np.float64) + upper.astype(np.float64)) / 2).astype(np.float32)
    return np.where(middle > lower, middle, upper)


def widened(rate: Rate, confidence: float = CONFIDENCE) -> Rate:
    """Return a rate with the limits of a band that contains the rates at all thresholds at once.

    Its interval holds at a threshold that depends on the same images in any way.
    """
    counts, level = _band(rate.total, confidence)
    at_or_below = int(counts[np.searchsorted(counts, rate.count, "right") - 1])
    at_or_above = int(counts[np.searchsorted(counts, rate.count, "left")])
    low = clopper_pearson(at_or_below, rate.total, level).low
    return replace(rate, low=low, high=clopper_pearson(at_or_above, rate.total, level).high)


@lru_cache(maxsize=8)
def _band(total: int, confidence: float) -> tuple[npt.NDArray[np.intp], float]:
    """Return the counts at which a band is evaluated, and the level of each of its intervals.

    The level is that at which all order statistics of uniform samples lie within their own limits at once
    (Aldor-Noiman et al., The power to see, The American Statistician 2013), found by simulation.
    """
    counts = [0]
    while counts[-1] < total:
        counts.append(min(total, max(counts[-1] + 1, round(counts[-1] * BAND_RATIO))))
    ranks = np.array(sorted({rank for count in counts for rank in (count, count + 1) if 0 < rank <= total}))
    steps = np.diff(np.concatenate([[0], ranks, [total + 1]]))
    spacings = np.random.default_rng(0).standard_gamma(steps, (BAND_DRAWS, len(steps)))
    ordered = np.cumsum(spacings, axis=1)
    below = betainc(ranks, total + 1 - ranks, ordered[:, :-1] / ordered[:, -1:])
    tails = np.minimum(below, 1 - below).min(axis=1)
    return np.array(counts), float(1 - 2 * np.quantile(tails, 1 - confidence))
