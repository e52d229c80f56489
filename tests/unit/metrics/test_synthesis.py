"""Distances of feature sets, compared with hand calculations."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import sqrtm

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.metrics.synthesis import frechet_distance, nearest, nearest_other, precision_recall


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_a_set_has_distance_0_to_itself() -> None:
    features = np.random.default_rng(0).normal(size=(20, 5))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_in_one_dimension_the_distance_sums_squared_differences_of_means_and_deviations() -> None:
    # {0, 2}: mean 1, variance 2; {10, 18}: mean 14, variance 32, so (13)^2 + (4 sqrt(2) - sqrt(2))^2 = 169 + 18.
    assert frechet_distance(column(0, 2), column(10, 18)) == pytest.approx(187)


def test_independent_dimensions_add_up() -> None:
    # Corners of boxes: standard deviations (a, b) * 2 / sqrt(3) of half sides (1, 2) and (3, 1).
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=float)
    expected = 4 / 3 * ((3 - 1) ** 2 + (1 - 2) ** 2)
    assert frechet_distance(corners * [1, 2], corners * [3, 1]) == pytest.approx(expected)


def test_the_distance_of_sets_that_vary_along_different_axes_is_the_sum_of_traces() -> None:
    # C1 = diag(2, 0), C2 = diag(0, 2): C1 C2 = 0.
    first, second = np.array([[-1.0, 0], [1, 0]]), np.array([[0, -1.0], [0, 1]])
    assert frechet_distance(first, second) == pytest.approx(4)


@pytest.mark.parametrize("count", [12, 200], ids=["few rows", "many rows"])
def test_the_distance_equals_the_literal_formula(count: int) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(count, 6)) @ rng.normal(size=(6, 6)), rng.normal(1, 2, size=(count + 3, 6))
    one, two = np.cov(first.T), np.cov(second.T)
    literal = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(first, second) == pytest.approx(literal, rel=1e-8)


def test_precision_and_recall_count_points_within_the_other_set() -> None:
    # With k = 1 the real balls have radii 1, 1 and 9, the synthetic ones 1, 1 and 18.
    real, synthetic = column(0, 1, 10), column(0.5, 1.5, 19.5)
    coverage = precision_recall(real, synthetic, neighbours=1)
    assert coverage.precision == pytest.approx(2 / 3)  # 19.5 is 9.5 from 10
    assert coverage.recall == pytest.approx(1)


def test_a_set_of_one_mode_is_precise_and_does_not_cover_the_other_mode() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(0, 1, (30, 2)), rng.normal(100, 1, (30, 2))
    coverage = precision_recall(np.concatenate([left, right]), left + 0.01)
    assert coverage.precision == 1
    assert coverage.recall == pytest.approx(0.5)


def test_the_nearest_neighbour_of_a_copy_is_its_original() -> None:
    real = np.random.default_rng(0).normal(size=(7, 3))
    result = nearest(real[[4, 2]], real)
    assert result.row.tolist() == [4, 2]
    assert result.distance.tolist() == [0, 0]


def test_the_nearest_other_is_never_the_image_itself() -> None:
    result = nearest_other(column(0, 1, 5))
    assert result.row.tolist() == [1, 0, 1]
    assert result.distance.tolist() == [1, 1, 4]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: frechet_distance(column(1), column(1, 2)), r"\(1, 1\) and \(2, 1\); there must be 2 rows"),
        (lambda: precision_recall(column(1, 2, 3), column(1, 2, 3)), "there must be 4 rows or more"),
        (lambda: nearest(np.zeros((2, 3)), np.zeros((2, 4))), "equally long in both"),
        (lambda: frechet_distance(column(1, np.nan), column(1, 2)), "infinite or not a number"),
    ],
)
def test_sets_that_are_not_comparable_are_refused(call: Callable[[], object], line: str) -> None:
    with pytest.raises(InvalidInputError, match=line):
        call()
