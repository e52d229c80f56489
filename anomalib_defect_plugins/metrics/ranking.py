"""Exact areas under curves over all thresholds, without storing the scores of all negatives.

The slope of a curve changes only at the scores of positives. These are stored; the many negatives are counted between
them, chunk by chunk. There is no binning: the areas equal those of torchmetrics and of anomalib's AUPRO on all scores.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ranking:
    """Counts of positives and negatives by score. Entry k belongs to the k-th highest distinct score of a positive.

    Args:
        hits: Number of positives with that score, shape (K,).
        weights: Sum of the weights of these positives, shape (K,); the total is 1.
        above: Number of negatives with a higher score, shape (K,).
        reached: Number of negatives with that score or a higher one, shape (K,).
        negatives: Number of negatives, at least 1.
    """

    hits: Counts
    weights: Floats
    above: Counts
    reached: Counts
    negatives: int

    @property
    def auroc(self) -> float:
        """Area under the ROC curve; ties count half."""
        return float(trapezoid(*self._curve(self.hits / self.hits.sum())[::-1]))

    @property
    def average_precision(self) -> float:
        """Sum over the thresholds of the precision times the increase in recall."""
        true_positives = self.hits.cumsum()
        recall_gain = self.hits / true_positives[-1]
        return float((recall_gain * true_positives / (true_positives + self.reached)).sum())

    def weighted_area(self, limit: float) -> float:
        """Return the area under the weighted recall over the false positive rate, up to a limit.

        Args:
            limit: Maximum false positive rate, in (0, 1]. The area is normalised by it.
        """
        rate, recall = self._curve(self.weights)
        inside = rate <= limit
        rates = np.append(rate[inside], limit)
        recalls = np.append(recall[inside], np.interp(limit, rate, recall))
        return float(trapezoid(recalls, rates) / limit)

    def _curve(self, gains: Floats) -> tuple[Floats, Floats]:
        """Return false positive rates and the sum of ``gains`` at them; the curve is linear in between."""
        total = gains.cumsum()
        rate = np.stack([self.above, self.reached], 1).ravel() / self.negatives
        recall = np.stack([total - gains, total], 1).ravel()
        return np.concatenate([[0], rate, [1]]), np.concatenate([[0], recall, [total[-1]]])


def rank(positives: Floats, negatives: Iterable[Floats], weights: Floats | None = None) -> Ranking | None:
    """Rank scores.

    Args:
        positives: Scores of the positives, shape (P,).
        negatives: Scores of the negatives, in chunks of any length.
        weights: Weights of the positives, shape (P,), with a sum of 1; equal by default.

    Returns:
        The ranking, or ``None`` if there are no positives or no negatives.
    """
    if not len(positives):
        return None
    scores, index = np.unique(positives, return_inverse=True)
    hits = np.bincount(index)
    below, not_above = (np.zeros(len(scores) + 1, np.int64) for _ in range(2))
    for chunk in negatives:
        ordered = np.sort(chunk, axis=None)  # for memory locality of the searches
        below += np.bincount(np.searchsorted(scores, ordered, "left"), minlength=len(below))
        not_above += np.bincount(np.searchsorted(scores, ordered, "right"), minlength=len(below))
    if not below.sum():
        return None
    return Ranking(
        hits=hits[::-1],
        weights=(hits / len(positives) if weights is None else np.bincount(index, weights).astype(float))[::-1],
        # The k-th count of ``below`` is that of the negatives which exceed exactly k of the distinct scores.
        above=below[::-1].cumsum()[:-1],
        reached=not_above[::-1].cumsum()[:-1],
        negatives=int(below.sum()),
    )
