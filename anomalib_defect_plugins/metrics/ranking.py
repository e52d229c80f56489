"""Exact areas under curves over all thresholds, without holding the scores of all negatives.

A curve bends at the scores of positives only. These are held; the many negatives are counted between them, part by
part. Nothing is binned: the areas are those of torchmetrics and of anomalib's AUPRO on all scores at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid


@dataclass(frozen=True)
class Ranking:
    """Positives and negatives by score. Entry k belongs to the k-th highest score that a positive has.

    Args:
        hits: (K,), positives with that score.
        weights: (K,), sum of the weights of these positives; all together 1.
        above: (K,), negatives with a higher score.
        reached: (K,), negatives with that score or a higher one.
        negatives: How many there are, at least 1.
    """

    hits: np.ndarray
    weights: np.ndarray
    above: np.ndarray
    reached: np.ndarray
    negatives: int

    @property
    def auroc(self) -> float:
        """Area under the ROC curve; equal scores count half."""
        return float(trapezoid(*self._curve(self.hits / self.hits.sum())[::-1]))

    @property
    def average_precision(self) -> float:
        """Sum over the thresholds of the precision times the gain in recall."""
        found = self.hits.cumsum()
        return float((self.hits / found[-1] * found / (found + self.reached)).sum())

    def weighted_area(self, limit: float) -> float:
        """Give the area under the weight of the positives found, over the false positive rate up to a limit.

        Args:
            limit: The false positive rate, in (0, 1]. An area of 1 is the whole width up to it.
        """
        rate, share = self._curve(self.weights)
        inside = rate <= limit
        rates = np.append(rate[inside], limit)
        shares = np.append(share[inside], np.interp(limit, rate, share))
        return float(trapezoid(shares, rates) / limit)

    def _curve(self, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give false positive rates and what is gained at them, from 0 to 1: straight lines lie between."""
        total = gains.cumsum()
        rate = np.stack([self.above, self.reached], 1).ravel() / self.negatives
        share = np.stack([total - gains, total], 1).ravel()
        return np.concatenate([[0], rate, [1]]), np.concatenate([[0], share, [total[-1]]])


def rank(positives: np.ndarray, negatives: Iterable[np.ndarray], weights: np.ndarray | None = None) -> Ranking | None:
    """Rank scores.

    Args:
        positives: (P,), scores of the positives.
        negatives: Scores of the negatives, in parts of any length.
        weights: (P,), weights of the positives that add up to 1; by default all alike.

    Returns:
        The ranking; ``None`` if there are no positives or no negatives.
    """
    if not len(positives):
        return None
    scores, place = np.unique(positives, return_inverse=True)
    hits = np.bincount(place)
    below, not_above = (np.zeros(len(scores) + 1, np.int64) for _ in range(2))
    for part in negatives:
        ordered = np.sort(part, axis=None)  # neighbours then look up neighbouring places in memory
        below += np.bincount(np.searchsorted(scores, ordered, "left"), minlength=len(below))
        not_above += np.bincount(np.searchsorted(scores, ordered, "right"), minlength=len(below))
    if not below.sum():
        return None
    return Ranking(
        hits=hits[::-1],
        weights=np.bincount(place, weights)[::-1] if weights is not None else hits[::-1] / len(positives),
        # Of a negative, as many of the scores are lower as its place among them says.
        above=below[::-1].cumsum()[:-1],
        reached=not_above[::-1].cumsum()[:-1],
        negatives=int(below.sum()),
    )
