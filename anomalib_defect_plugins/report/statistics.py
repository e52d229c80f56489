"""Statistics of metrics and times that vary: mean, spread, significance, and the Pareto front."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Confidence level at which one row counts as better than another."""

Name = TypeVar("Name")


class MeanSpread(NamedTuple):
    """Mean and spread of a value over the seeds of a row.

    Args:
        mean: Mean.
        spread: Sample standard deviation (division by n - 1); ``None`` for a single value.
        size: Number of values, n.
    """

    mean: float
    spread: float | None
    size: int


def mean_spread(values: Iterable[float | None]) -> MeanSpread | None:
    """Compute mean and spread of the known values; ``None`` if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    # Equal values have no spread, however their mean is rounded.
    spread = 0.0 if len(set(known)) == 1 else float(np.std(known, ddof=1))
    return MeanSpread(float(np.mean(known)), spread if len(known) > 1 else None, len(known))


def clearly_best(rows: Mapping[Name, MeanSpread | None], higher: bool = True) -> Name | None:
    """Return the row that is better than every other row by more than the spread explains.

    It is the row with the best mean, if Welch's 95 % confidence interval of the difference to the mean of each other
    row lies above 0. Since it has to pass all these tests, no correction for their number is needed (Berger,
    Multiparameter hypothesis testing and acceptance sampling, Technometrics 1982). The spread of a row with one seed is
    unknown, so no row is clearly better than it. Rows without the metric are ignored.

    Args:
        rows: Comparable rows by name.
        higher: Whether higher values are better.

    Returns:
        Name of the row; ``None`` if no row is clearly the best or there are fewer than two.
    """
    known = {name: row if higher else row._replace(mean=-row.mean) for name, row in rows.items() if row is not None}
    if len(known) < 2:
        return None
    best = max(known, key=lambda name: known[name].mean)
    return best if all(_is_better(known[best], row) for name, row in known.items() if name != best) else None


def _is_better(row: MeanSpread, other: MeanSpread) -> bool:
    """Whether Welch's confidence interval of the difference (Biometrika 1947) lies above 0."""
    if row.spread is None or other.spread is None:
        return False
    parts = [(row.spread**2 / row.size, row.size), (other.spread**2 / other.size, other.size)]
    variance = sum(part for part, _ in parts)
    difference = row.mean - other.mean
    if not variance:
        return difference > 0
    degrees = variance**2 / sum(part**2 / (size - 1) for part, size in parts)
    return bool(difference > stdtrit(degrees, (1 + CONFIDENCE) / 2) * variance**0.5)


class CallTimes(NamedTuple):
    """Time of a call over the runs of a model, in milliseconds.

    Args:
        median: Mean of the medians of the runs.
        low: Lowest median of a run.
        high: Highest 95th percentile of a run.
    """

    median: float
    low: float
    high: float

    def is_faster_than(self, other: "CallTimes") -> bool:
        """Whether 95 % of its calls in each run are faster than the median of the other in any run."""
        return self.high < other.low


def clearly_fastest(times: Mapping[Name, CallTimes]) -> Name | None:
    """Return what is faster than everything else by more than the spread; ``None`` if nothing is, or is alone."""
    name = min(times, key=lambda name: times[name].median, default=None)
    others = [time for other, time in times.items() if other != name]
    if name is None or not others:
        return None
    return name if all(times[name].is_faster_than(other) for other in others) else None


def pareto_front(points: Mapping[Name, tuple[CallTimes, float]]) -> list[Name]:
    """Return the points that no other point dominates.

    A point dominates another if it is more accurate and not slower, or as accurate and faster. A difference of times
    counts only if the spread of the calls allows it.

    Args:
        points: Times (lower is better) and accuracy (higher is better) by name.

    Returns:
        Names from the fastest to the most accurate.
    """

    def dominates(one: tuple[CallTimes, float], other: tuple[CallTimes, float]) -> bool:
        if one[1] > other[1]:
            return not other[0].is_faster_than(one[0])
        return one[1] == other[1] and one[0].is_faster_than(other[0])

    front = [name for name in points if not any(dominates(point, points[name]) for point in points.values())]
    return sorted(front, key=lambda name: points[name][0].median)
