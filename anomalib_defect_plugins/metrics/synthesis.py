"""Similarity of a set of synthetic images to a set of real ones, from features of shape (N, D), one row per image.

- Fréchet distance: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
  NeurIPS 2017, eq. 6. It is called FID only for features of the Inception network.
- Precision and recall: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
  NeurIPS 2019, eq. 1 and 2.
- Nearest real neighbours, which reveal whether a synthetic image is a copy.

Fréchet distances of small sets are biased upwards, so only sets of equal size are comparable.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import qr, svdvals
from scipy.spatial.distance import cdist

from anomalib_defect_plugins.core.errors import InvalidInputError

Features = npt.NDArray[np.floating[Any]]

NEIGHBOURS = 3
"""The paper's k of precision and recall (section 3)."""


def frechet_distance(first: Features, second: Features) -> float:
    """Return the squared Fréchet distance of two Gaussians with the means and covariances of two sets.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``. With ``Ci = Ai^T Ai``, the last trace is the sum of the singular
    values of ``A1 A2^T``, which avoids the root of a matrix that is singular for small sets.

    Args:
        first: Features, shape (N, D), N at least 2.
        second: Features, shape (M, D), M at least 2.

    Raises:
        InvalidInputError: If the sets are not comparable.
    """
    first, second = _checked(first, second, min_rows=2)
    roots = [_covariance_root(features) for features in (first, second)]
    mean_term = float(((first.mean(0) - second.mean(0)) ** 2).sum())
    traces = sum(float((root**2).sum()) for root in roots)
    return mean_term + max(0.0, traces - 2 * float(svdvals(roots[0] @ roots[1].T).sum()))


def _covariance_root(features: Features) -> Features:
    """Return a matrix A with at most D rows for which A^T A is the covariance."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    root: Features = qr(centred, mode="r")[0][: features.shape[1]] if len(features) > features.shape[1] else centred
    return root


class Coverage(NamedTuple):
    """Precision and recall, both in [0, 1]."""

    precision: float
    """Fraction of the synthetic images inside the manifold of the real ones."""
    recall: float
    """Fraction of the real images inside the manifold of the synthetic ones."""


def precision_recall(real: Features, synthetic: Features, neighbours: int = NEIGHBOURS) -> Coverage:
    """Compute the fraction of each set that lies inside the manifold of the other.

    The manifold of a set is the union of balls around its images, each with the distance to the image's k-th nearest
    neighbour in the set as its radius.

    Args:
        real: Features, shape (N, D), N greater than ``neighbours``.
        synthetic: Features, shape (M, D), M greater than ``neighbours``.
        neighbours: The k.

    Raises:
        InvalidInputError: If the sets are not comparable.
    """
    real, synthetic = _checked(real, synthetic, min_rows=neighbours + 1)
    between = cdist(real, synthetic)
    return Coverage(
        float((between <= _radii(real, neighbours)[:, None]).any(0).mean()),  # eq. 1 and 2
        float((between <= _radii(synthetic, neighbours)).any(1).mean()),
    )


def _radii(features: Features, neighbours: int) -> Features:
    # The nearest neighbour of each image is the image itself.
    radii: Features = np.partition(cdist(features, features), neighbours, axis=1)[:, neighbours]
    return radii


class Nearest(NamedTuple):
    """Nearest image of another set for each of N images."""

    row: npt.NDArray[np.intp]
    """Row of the nearest image, shape (N,)."""
    distance: Features
    """Euclidean distance to it, shape (N,)."""


def nearest(features: Features, others: Features) -> Nearest:
    """Find the nearest row of ``others`` (M, D) for each row of ``features`` (N, D).

    Raises:
        InvalidInputError: If the sets are not comparable.
    """
    features, others = _checked(features, others, min_rows=1)
    distances = cdist(features, others)
    return Nearest(distances.argmin(1), distances.min(1))


def nearest_other(features: Features) -> Nearest:
    """Find the nearest other row for each row of ``features`` (N, D), N at least 2.

    Raises:
        InvalidInputError: If there is only one row.
    """
    features, _ = _checked(features, features, min_rows=2)
    distances = cdist(features, features)
    np.fill_diagonal(distances, np.inf)
    return Nearest(distances.argmin(1), distances.min(1))


def _checked(first: Features, second: Features, min_rows: int) -> tuple[Features, Features]:
    """Return both sets in double precision."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    fits = first.ndim == 2 and second.ndim == 2 and first.shape[1] == second.shape[1]
    if not fits or min(len(first), len(second)) < min_rows:
        shapes = f"{first.shape} and {second.shape}"
        msg = f"features are {shapes}; there must be {min_rows} rows or more, equally long in both"
        raise InvalidInputError(msg)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        msg = "some features are infinite or not a number; check the images for extreme values"
        raise InvalidInputError(msg)
    return first, second
