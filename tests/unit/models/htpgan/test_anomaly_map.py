"""Eq. 4 and its alternatives, against values calculated by hand."""

import math

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.models.htpgan.anomaly_map import FUSIONS, ScaleAnomalyMap, fuse

PROBABILITIES = torch.tensor([0.9, 0.5, 1 / math.e, 0.25, 0.1])
EXPECTED = {
    "paper": [-0.094824, -0.346574, -0.367879, -0.346574, -0.230259],  # M log M
    "entropy": [0.094824, 0.346574, 0.367879, 0.367879, 0.367879],  # -m log m, m = max(M, 1/e)
    "log_odds": [-2.197225, 0.0, 0.541325, 1.098612, 2.197225],  # log (1 - M) / M
}


@pytest.mark.parametrize("fusion", EXPECTED)
def test_values_match_those_calculated_by_hand(fusion):
    result = ScaleAnomalyMap(fusion)(PROBABILITIES.logit())
    assert torch.allclose(result, torch.tensor(EXPECTED[fusion]), atol=1e-5)


@pytest.mark.parametrize("fusion", ["entropy", "log_odds"])
def test_a_pixel_less_likely_to_be_normal_never_counts_as_less_anomalous(fusion):
    values = ScaleAnomalyMap(fusion)(torch.linspace(60, -60, 2001))
    assert (values.diff() >= 0).all()


@pytest.mark.parametrize(("fusion", "lowest"), [("entropy", -0.54), ("log_odds", -60.0)])  # -0.5413 is where M = 1/e
def test_values_are_distinct_where_the_discriminator_is_not_certain_of_a_defect(fusion, lowest):
    values = ScaleAnomalyMap(fusion)(torch.linspace(60, lowest, 301))
    assert (values.diff() > 0).all()


def test_the_printed_form_ranks_certain_texture_above_uncertain():
    certain, uncertain = ScaleAnomalyMap("paper")(torch.tensor([8.0, -0.5]))
    assert certain > uncertain


@pytest.mark.parametrize("fusion", EXPECTED)
@pytest.mark.parametrize("logit", [12.0, 16.0, 40.0])
def test_large_logits_have_distinct_values_in_single_precision(fusion, logit):
    lower, higher = ScaleAnomalyMap(fusion)(torch.tensor([logit, logit + 1]))
    assert lower != higher
    exact = -logit if fusion == "log_odds" else math.exp(-logit) * (-1 if fusion == "paper" else 1)
    assert float(lower) == pytest.approx(exact, rel=1e-4)  # -log M is exp(-logit) to first order


@pytest.mark.parametrize("fusion", FUSIONS)
def test_values_are_finite_at_any_logit_and_keep_the_shape(fusion):
    result = ScaleAnomalyMap(fusion)(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4, 1.0]).reshape(1, 1, 2, 3))
    assert result.isfinite().all()
    assert result.shape == (1, 1, 2, 3)


def test_an_unknown_fusion_is_rejected_with_a_list_of_the_known_ones():
    with pytest.raises(
        InvalidInputError, match=r"^fusion is 'mean'; it must be one of typicality, maximum, log_odds, entropy, paper$"
    ):
        ScaleAnomalyMap("mean")


def test_typicality_is_the_distance_from_the_median_in_percentile_distances_of_the_normal_image():
    scale_map = ScaleAnomalyMap("typicality")
    scale_map.calibrate(torch.arange(101.0) ** 2)  # percentiles 2, 50, 98: 4, 2500, 9604
    result = scale_map(torch.tensor([2500.0, 4.0, 9604.0, -2492.0, 16708.0]))
    assert torch.allclose(result, torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0]))


def test_typicality_is_finite_for_a_uniform_normal_image():
    scale_map = ScaleAnomalyMap("typicality")
    scale_map.calibrate(torch.full((9,), 3.0))
    assert scale_map(torch.tensor([3.0, 4.0])).isfinite().all()


def test_maximum_has_units_of_rarer_quantiles_than_typicality():
    scale_map = ScaleAnomalyMap("maximum")
    scale_map.calibrate(torch.arange(2001.0) ** 2)  # quantiles 0.0005, 0.5, 0.9995: 1, 1000^2, 1999^2
    result = scale_map(torch.tensor([1e6, 1.0, 1999.0**2, 2 - 1e6]))
    assert torch.allclose(result, torch.tensor([0.0, 1.0, -1.0, 2.0]), atol=1e-5)


@pytest.mark.parametrize(("fusion", "expected"), [("log_odds", 1.0), ("typicality", 5.0), ("maximum", 7.0)])
def test_scales_are_fused_by_their_mean_and_signed_ones_regardless_of_the_side(fusion, expected):
    maps = [torch.full((1, 1, 2, 2), value) for value in (7.0, -5.0, 1.0)]  # mean 1, mean square 25
    assert torch.allclose(fuse(maps, fusion), torch.tensor(expected))


def test_the_printed_form_ranks_defects_right_if_m_is_one_half_on_normal_texture_and_a_quarter_at_most_on_them():
    """M log M has equal values at 1/2 and 1/4, and rises below."""
    values = ScaleAnomalyMap("paper")(torch.tensor([0.5, 0.25, 0.2, 0.01]).logit())
    assert values[0] == pytest.approx(float(values[1]))
    assert values[0] < values[2] < values[3]


@pytest.mark.parametrize("normal", [0.9, 0.96, 0.99])
def test_the_printed_form_ranks_defects_below_normal_texture_if_m_is_near_1_there(normal):
    values = ScaleAnomalyMap("paper")(torch.tensor([normal, 0.7, 0.5, 0.1]).logit())
    assert (values[0] > values[1:]).all()
