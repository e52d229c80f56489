"""How close a set of synthetic images is to a set of real ones, by their features: (N, D), one row an image.

- Fréchet distance: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
  NeurIPS 2017, eq. 6. On the features of the Inception network alone it is called FID.
- Precision and recall: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
  NeurIPS 2019, eq. 1 and 2.
- Nearest real neighbours, which show whether a synthetic image is a copy.

Fréchet distances of small sets are biased upwards: compare figures of sets of equal sizes only.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import qr, svdvals
from scipy.spatial.distance import cdist

from anomalib_defect_plugins.core.errors import InvalidInputError

NEIGHBOURS = 3
"""The paper's k of precision and recall (section 3)."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Give the squared Fréchet distance of the two Gaussians that have the means and covariances of two sets.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``. With ``Ci = Ai^T Ai`` the last trace is the sum of the singular
    values of ``A1 A2^T``, so that no root of a singular matrix is taken, however few images there are.

    Args:
        first: Features (N, D), N at least 2.
        second: Features (M, D), M at least 2.

    Raises:
        InvalidInputError: The sets cannot be compared.
    """
    first, second = _checked(first, second, least=2)
    roots = [_root(features) for features in (first, second)]
    apart = float(((first.mean(0) - second.mean(0)) ** 2).sum())
    spread = sum(float((root**2).sum()) for root in roots) - 2 * float(svdvals(roots[0] @ roots[1].T).sum())
    return apart + max(0.0, spread)


def _root(features: np.ndarray) -> np.ndarray:
    """A matrix A with at most D rows such that A^T A is the covariance."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    root: np.ndarray = qr(centred, mode="r")[0][: features.shape[1]] if len(features) > features.shape[1] else centred
    return root


class Coverage(NamedTuple):
    """Precision and recall, both in [0, 1]."""

    precision: float
    """Share of the synthetic images that lie among the real ones."""
    recall: float
    """Share of the real images that lie among the synthetic ones."""


def precision_recall(real: np.ndarray, synthetic: np.ndarray, neighbours: int = NEIGHBOURS) -> Coverage:
    """Tell how much of each set lies inside the other.

    A set takes up the union of balls around its images, each of which reaches to the image's k-th nearest neighbour in
    the set.

    Args:
        real: Features (N, D), N more than ``neighbours``.
        synthetic: Features (M, D), M more than ``neighbours``.
        neighbours: The k.

    Raises:
        InvalidInputError: The sets cannot be compared.
    """
    real, synthetic = _checked(real, synthetic, least=neighbours + 1)
    between = cdist(real, synthetic)
    return Coverage(
        float((between <= _radii(real, neighbours)[:, None]).any(0).mean()),  # eq. 1 and 2
        float((between <= _radii(synthetic, neighbours)).any(1).mean()),
    )


def _radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    # The nearest of all is the image itself.
    return np.partition(cdist(features, features), neighbours, axis=1)[:, neighbours]


class Nearest(NamedTuple):
    """For each image of a set of N the nearest of another."""

    row: np.ndarray
    """(N,), its row."""
    distance: np.ndarray
    """(N,), how far it is, Euclidean."""


def nearest(features: np.ndarray, others: np.ndarray) -> Nearest:
    """Find for each row of ``features`` (N, D) the nearest row of ``others`` (M, D).

    Raises:
        InvalidInputError: The sets cannot be compared.
    """
    features, others = _checked(features, others, least=1)
    distances = cdist(features, others)
    return Nearest(distances.argmin(1), distances.min(1))


def nearest_other(features: np.ndarray) -> Nearest:
    """Find for each row of ``features`` (N, D), N at least 2, the nearest other row.

    Raises:
        InvalidInputError: There is no other.
    """
    features, _ = _checked(features, features, least=2)
    distances = cdist(features, features)
    np.fill_diagonal(distances, np.inf)
    return Nearest(distances.argmin(1), distances.min(1))


def _checked(first: np.ndarray, second: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Give both in double precision."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    fits = first.ndim == 2 and second.ndim == 2 and first.shape[1] == second.shape[1]
    if not fits or min(len(first), len(second)) < least:
        msg = f"features are {first.shape} and {second.shape}; there must be {least} rows or more, equally long in both"
        raise InvalidInputError(msg)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        msg = "some features are infinite or not a number; look for extreme values in the images"
        raise InvalidInputError(msg)
    return first, second
