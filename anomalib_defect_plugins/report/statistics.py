"""What may be said of figures that vary with the seed: mean, spread, the best, and the Pareto front."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
"""Confidence at which one row counts as better than another."""

Name = TypeVar("Name")


class Measured(NamedTuple):
    """A figure over the seeds of a row.

    Args:
        mean: Mean.
        spread: Sample standard deviation (division by n - 1); ``None`` for one value.
        count: Number of values, n.
    """

    mean: float
    spread: float | None
    count: int


def measure(values: Sequence[float]) -> Measured | None:
    """Give mean and spread of values; ``None`` if there are none."""
    if not values:
        return None
    # Equal values have no spread, whatever the rounding of their mean.
    spread = 0.0 if len(set(values)) == 1 else float(np.std(values, ddof=1))
    return Measured(float(np.mean(values)), spread if len(values) > 1 else None, len(values))


def clearly_best(rows: Mapping[Name, Measured | None], higher: bool = True) -> Name | None:
    """Give the row that is better than each other one by more than the spread explains, if there is one.

    It is the row with the best mean, if for each other row Welch's 95 % confidence interval of the difference of the
    two means lies above 0. That the row has to pass against every other makes a correction for the number of rows
    superfluous (Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 1982). A row of one
    seed has no known spread, so beside it nothing is the best. Rows without the figure are passed over.

    Args:
        rows: The rows that may be compared with one another.
        higher: Whether more is better.

    Returns:
        The row's name; ``None`` if none is clearly the best or there is nothing to compare with.
    """
    known = {name: row if higher else row._replace(mean=-row.mean) for name, row in rows.items() if row is not None}
    if len(known) < 2:
        return None
    best = max(known, key=lambda name: known[name].mean)
    return best if all(_beats(known[best], row) for name, row in known.items() if name != best) else None


def _beats(better: Measured, other: Measured) -> bool:
    """Whether Welch's interval of the difference (Biometrika 1947) lies above 0."""
    if better.spread is None or other.spread is None:
        return False
    parts = [row.spread**2 / row.count for row in (better, other)]
    variance = sum(parts)
    difference = better.mean - other.mean
    if not variance:
        return difference > 0
    degrees = variance**2 / sum(part**2 / (row.count - 1) for part, row in zip(parts, (better, other), strict=True))
    return difference > stdtrit(degrees, (1 + LEVEL) / 2) * variance**0.5


def pareto_front(points: Mapping[Name, tuple[float, float]]) -> list[Name]:
    """Give the points that no other one beats: none is as fast and as good, and better in one of the two.

    Args:
        points: Time (less is better) and accuracy (more is better) by name.

    Returns:
        Names from the fastest to the most accurate.
    """

    def beaten(name: Name) -> bool:
        time, accuracy = points[name]
        return any(
            other_time <= time and other_accuracy >= accuracy and (other_time, other_accuracy) != (time, accuracy)
            for other_time, other_accuracy in points.values()
        )

    return sorted((name for name in points if not beaten(name)), key=lambda name: points[name])
