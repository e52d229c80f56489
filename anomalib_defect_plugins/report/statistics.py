"""Statistics of metrics that vary with the seed: mean, spread, significance, and the Pareto front."""

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


def pareto_front(points: Mapping[Name, tuple[float, float]]) -> list[Name]:
    """Return the points that no other point dominates: as fast and as accurate, and better in one of the two.

    Args:
        points: Time (lower is better) and accuracy (higher is better) by name.

    Returns:
        Names from the fastest to the most accurate.
    """

    def is_dominated(name: Name) -> bool:
        time, accuracy = points[name]
        return any(
            other_time <= time and other_accuracy >= accuracy and (other_time, other_accuracy) != (time, accuracy)
            for other_time, other_accuracy in points.values()
        )

    return sorted((name for name in points if not is_dominated(name)), key=lambda name: points[name])
