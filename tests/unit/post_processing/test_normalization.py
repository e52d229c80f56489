"""Normalisation: fixed points, order, agreement with the threshold, and ranges that are degenerate."""

import itertools

import pytest
import torch
from anomalib.post_processing import PostProcessor
from torch import Tensor

from anomalib_defect_plugins.post_processing import DefectPostProcessor, UnitPostProcessor
from anomalib_defect_plugins.post_processing.normalization import TAIL, normalize, reaches

SCALES = [1e-20, 1e-12, 1e-6, 1.0, 1e3, 1e6]

NAN, INF = float("nan"), float("inf")


def scalars(*values: float) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shift", [0, -20, 100])
def test_lowest_value_threshold_and_highest_value_become_zero_one_half_and_one(scale: float, shift: float) -> None:
    values = (torch.tensor([2.0, 3.0, 4.0, 9.0, 14.0]) + shift) * scale
    normalized = normalize(values, values[0], values[4], values[2])
    expected = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert torch.allclose(normalized, expected, atol=TAIL)
    assert normalized[2] == 0.5


@pytest.mark.parametrize("scale", SCALES)
def test_the_order_of_all_values_is_kept_also_beyond_the_range(scale: float) -> None:
    # Validated from 2 to 14; those beyond reach from far below to far above.
    inside = torch.linspace(2, 14, 1001)
    values = torch.cat([torch.linspace(-50, 1.9, 200), inside, torch.linspace(14.1, 100, 200)]) * scale
    low, high, threshold = scalars(2 * scale, 14 * scale, 4 * scale)
    normalized = normalize(values, low, high, threshold)
    assert (normalized.diff() > 0).all()
    assert normalized.min() > 0
    assert normalized.max() < 1
    assert (PostProcessor._normalize(values, low, high, threshold).diff() == 0).any()  # anomalib clips


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("tail", [0, TAIL])
def test_exactly_the_values_that_reach_the_threshold_become_a_half_or_more(scale: float, tail: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        low, threshold, high = (torch.rand(3, generator=generator).sort().values * scale).unbind()
        values = torch.rand(100, generator=generator) * scale
        near = [torch.nextafter(threshold, torch.tensor(end)) for end in (-INF, INF)]
        values = torch.cat([values, torch.stack([threshold, *near])])
        assert torch.equal(normalize(values, low, high, threshold, tail) >= 0.5, values >= threshold)
        assert torch.equal(reaches(values, threshold), values >= threshold)


@pytest.mark.parametrize("threshold", [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, -2.5, INF, -INF])
def test_extreme_thresholds_are_reached_as_numbers_are(threshold: float) -> None:
    (limit,) = scalars(threshold)
    values = torch.tensor([-INF, -3e38, -2.5, -1.0, 0.0, 1e-30, 1.0, 3e38, INF])
    values = torch.cat([values, limit[None]])
    if torch.isfinite(limit):
        assert torch.equal(reaches(values, limit), values >= limit)
    else:
        assert reaches(values[1:8], limit).all() == (limit < 0)


BOUNDS = {
    "threshold at the lowest value": (1.0, 3.0, 1.0),
    "threshold at the highest value": (1.0, 3.0, 3.0),
    "threshold just above the highest value": (1.0, 3.0, 3.0000002),
    "threshold above the range": (1.0, 3.0, 5.0),
    "threshold below the range": (1.0, 3.0, 0.5),
    "one value": (2.0, 2.0, 2.0),
    "one value, zero": (0.0, 0.0, 0.0),
    "no threshold": (1.0, 3.0, NAN),
    "infinite threshold": (1.0, 3.0, INF),
    "infinite highest value": (1.0, INF, 2.0),
    "infinite lowest value": (-INF, 3.0, 2.0),
}


@pytest.mark.parametrize(("case", "scale"), itertools.product(BOUNDS, [1e-20, 1.0, 1e6]))
def test_degenerate_ranges_keep_the_order_and_are_in_the_unit_interval(case: str, scale: float) -> None:
    low, high, threshold = scalars(*(bound * scale for bound in BOUNDS[case]))
    values = torch.tensor([-10.0, -1, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 10]) * scale
    normalized = normalize(values, low, high, threshold)
    assert ((normalized >= 0) & (normalized <= 1)).all()
    if low < high or threshold != 0:  # otherwise nothing says how large the values are
        assert (normalized.diff() > 0).all()
    if torch.isfinite(threshold):
        assert torch.equal(normalized >= 0.5, values >= threshold)


def test_infinite_values_become_zero_and_one() -> None:
    normalized = normalize(torch.tensor([-INF, INF]), *scalars(1.0, 3.0, 2.0))
    assert normalized.tolist() == [0, 1]


@pytest.mark.parametrize("cls", [DefectPostProcessor, UnitPostProcessor])
def test_values_are_unchanged_without_validation_images(cls: type[DefectPostProcessor]) -> None:
    values = torch.tensor([-3.0, 0.5, 1000.0])
    assert torch.equal(cls._normalize(values, *scalars(NAN, NAN, 0.5)), values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_values_in_half_precision_are_normalised_in_single_precision(dtype: torch.dtype) -> None:
    normalized = normalize(torch.tensor([1.0, 1.5, 3.0], dtype=dtype), *scalars(1.0, 3.0, 2.0))
    assert normalized.dtype == torch.float32
    assert normalized.tolist() == pytest.approx([0, 0.25, 1], abs=TAIL)


def test_scores_in_the_unit_interval_are_mapped_from_zero_and_one() -> None:
    values = torch.tensor([0.0, 0.4, 0.8, 0.9, 1.0])
    normalized = UnitPostProcessor._normalize(values, *scalars(0.05, 0.95, 0.8))
    assert torch.allclose(normalized, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


@pytest.mark.parametrize("threshold", [0.0, 4.9e-13, 1.0, NAN])
def test_scores_in_the_unit_interval_keep_their_order_at_any_threshold(threshold: float) -> None:
    values = torch.cat([torch.tensor([0.0, 1e-21, 2e-21, 4e-13]), torch.linspace(1e-6, 1, 11)])
    normalized = UnitPostProcessor._normalize(values, *scalars(0.0, 1.0, threshold))
    assert (normalized.diff() >= 0).all()
    assert (normalized[4:].diff() > 0).all()
    assert 0 <= normalized.min() <= normalized.max() <= 1
    if threshold == 4.9e-13:
        assert (normalized[:4].diff() > 0).all()
        assert (normalized[:4] < 0.5).all()
