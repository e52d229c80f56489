"""Eq. 4 and what may stand in its place, against values calculated by hand."""

import math

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.models.htpgan.anomaly_map import FUSIONS, ScaleAnomalyMap, fuse, image_score

PROBABILITIES = torch.tensor([0.9, 0.5, 1 / math.e, 0.25, 0.1])
EXPECTED = {
    "paper": [-0.094824, -0.346574, -0.367879, -0.346574, -0.230259],  # M log M
    "entropy": [0.094824, 0.346574, 0.367879, 0.367879, 0.367879],  # -m log m, m = max(M, 1/e)
    "log_odds": [-2.197225, 0.0, 0.541325, 1.098612, 2.197225],  # log (1 - M) / M
}


@pytest.mark.parametrize("fusion", EXPECTED)
def test_values_are_those_calculated_by_hand(fusion):
    result = ScaleAnomalyMap(fusion)(PROBABILITIES.logit())
    assert torch.allclose(result, torch.tensor(EXPECTED[fusion]), atol=1e-5)


@pytest.mark.parametrize("fusion", ["entropy", "log_odds"])
def test_a_pixel_less_likely_to_be_normal_never_counts_as_less_anomalous(fusion):
    values = ScaleAnomalyMap(fusion)(torch.linspace(60, -60, 2001))
    assert (values.diff() >= 0).all()


@pytest.mark.parametrize(("fusion", "lowest"), [("entropy", -0.54), ("log_odds", -60.0)])  # -0.5413 is where M = 1/e
def test_pixels_are_told_apart_where_the_discriminator_is_not_sure_of_a_defect(fusion, lowest):
    values = ScaleAnomalyMap(fusion)(torch.linspace(60, lowest, 301))
    assert (values.diff() > 0).all()


def test_the_printed_form_ranks_sure_texture_above_unsure():
    sure, unsure = ScaleAnomalyMap("paper")(torch.tensor([8.0, -0.5]))
    assert sure > unsure


@pytest.mark.parametrize("fusion", EXPECTED)
@pytest.mark.parametrize("logit", [12.0, 16.0, 40.0])
def test_large_logits_are_told_apart_in_single_precision(fusion, logit):
    lower, higher = ScaleAnomalyMap(fusion)(torch.tensor([logit, logit + 1]))
    assert lower != higher
    exact = -logit if fusion == "log_odds" else math.exp(-logit) * (-1 if fusion == "paper" else 1)
    assert float(lower) == pytest.approx(exact, rel=1e-4)  # -log M is exp(-logit) to first order


@pytest.mark.parametrize("fusion", FUSIONS)
def test_values_are_finite_at_any_logit_and_keep_the_shape(fusion):
    result = ScaleAnomalyMap(fusion)(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4, 1.0]).reshape(1, 1, 2, 3))
    assert result.isfinite().all()
    assert result.shape == (1, 1, 2, 3)


def test_an_unknown_fusion_is_refused_with_those_that_there_are():
    with pytest.raises(
        InvalidInputError, match=r"^fusion is 'mean'; it must be one of typicality, log_odds, entropy, paper$"
    ):
        ScaleAnomalyMap("mean")


def test_typicality_counts_percentile_distances_from_the_median_of_the_normal_image():
    scale_map = ScaleAnomalyMap("typicality")
    scale_map.calibrate(torch.arange(101.0) ** 2)  # percentiles 2, 50, 98: 4, 2500, 9604
    result = scale_map(torch.tensor([2500.0, 4.0, 9604.0, -2492.0, 16708.0]))
    assert torch.allclose(result, torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0]))


def test_typicality_survives_a_normal_image_without_any_variation():
    scale_map = ScaleAnomalyMap("typicality")
    scale_map.calibrate(torch.full((9,), 3.0))
    assert scale_map(torch.tensor([3.0, 4.0])).isfinite().all()


@pytest.mark.parametrize(("fusion", "expected"), [("log_odds", 1.0), ("typicality", 5.0)])
def test_scales_are_fused_by_mean_and_by_root_mean_square_where_the_sign_is_only_a_side(fusion, expected):
    maps = [torch.full((1, 1, 2, 2), value) for value in (7.0, -5.0, 1.0)]  # mean 1, mean square 25
    assert torch.allclose(fuse(maps, fusion), torch.tensor(expected))


def test_the_score_of_an_image_is_the_mean_of_its_highest_hundredth():
    anomaly_map = torch.zeros(2, 1, 20, 20)
    anomaly_map[0, 0, 3, :5] = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0])  # the highest four: 2, 3, 4, 9
    assert image_score(anomaly_map).tolist() == [4.5, 0.0]


def test_the_score_of_a_tiny_image_is_its_highest_pixel():
    assert image_score(torch.tensor([[[[1.0, 5.0]]]])).tolist() == [5.0]
