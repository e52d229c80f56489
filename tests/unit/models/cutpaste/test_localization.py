"""Positions of the scores of both localisers."""

import pytest
import torch

from anomalib_defect_plugins.layers.density import Moments
from anomalib_defect_plugins.models.cutpaste import localization
from anomalib_defect_plugins.models.cutpaste.localization import (
    DenseLocalizer,
    WindowLocalizer,
    cut_windows,
    spread_matrix,
    window_starts,
)


def corners(images):
    """Return the top left pixel of each image, as the only map of a backbone."""
    return [images[:, :, :1, :1]]


# Dense


def test_a_position_five_standard_deviations_away_scores_five_and_the_others_zero():
    localizer = DenseLocalizer(
        channels=[2], layers=[0], image_maps=[0], sigma=0.1
    )  # no smoothing; the densities are standard normal
    features = torch.zeros(1, 2, 8, 8)
    features[0, :, 3, 5] = torch.tensor([3.0, 4.0])
    pooled, positions = localizer.describe(lambda image: [image], features)
    expected = torch.zeros(8, 8)
    expected[3, 5] = 5
    distances = [localizer.densities[0](pooled), localizer.densities[1](positions)]
    result = localizer(distances, (8, 8))
    assert torch.allclose(result.anomaly_map[0, 0], expected, atol=1e-6)
    assert result.pred_score.tolist() == pytest.approx([5 / 64])  # distance of the mean feature, (3, 4) / 64


def test_smoothing_spreads_a_score_and_keeps_its_sum():
    localizer = DenseLocalizer(channels=[1], layers=[0], image_maps=[0], sigma=2.0)
    distances = torch.zeros(1, 64, 64)
    distances[0, 32, 32] = 1
    smooth = localizer([torch.zeros(1), distances], (64, 64)).anomaly_map
    assert smooth.sum() == pytest.approx(1, abs=1e-5)
    assert smooth.argmax() == 32 * 64 + 32
    assert smooth.max() == pytest.approx(1 / (2 * torch.pi * 4), rel=0.02)  # peak of a Gaussian in two dimensions


def test_maps_of_two_sizes_are_concatenated_at_the_finer_one():
    localizer = DenseLocalizer(channels=[2, 3, 5], layers=[0, 1], image_maps=[0, 2], sigma=1.0)
    maps = [torch.rand(2, 2, 8, 6), torch.full((2, 3, 4, 3), 0.25), torch.rand(2, 5, 2, 2)]
    first, last, positions = localizer.describe(lambda image: maps, torch.zeros(2, 3, 32, 24))
    assert torch.allclose(first, maps[0].mean((2, 3)))
    assert torch.allclose(last, maps[2].mean((2, 3)))
    assert positions.shape == (2, 8, 6, 5)
    assert torch.equal(positions[..., :2], maps[0].permute(0, 2, 3, 1))
    assert torch.allclose(positions[..., 2:], torch.tensor(0.25))


@pytest.mark.parametrize(("score", "expected"), [("features", 5.0), ("positions", 9.0), ("both", (5 / 2 + 9 / 3) / 2)])
def test_the_image_score_is_that_of_features_of_positions_or_of_both(score, expected):
    localizer = DenseLocalizer(channels=[1, 1], layers=[0], image_maps=[0, 1], sigma=0.1, score=score)
    localizer.deviations.copy_(torch.tensor([2.0, 3.0]))
    positions = torch.zeros(1, 10, 10)
    positions[0, 4, 4] = 9  # the highest 1 % of 100 pixels
    assert localizer([torch.tensor([3.0]), torch.tensor([4.0]), positions], (10, 10)).pred_score.tolist() == [expected]


def test_the_deviations_are_those_of_the_scores():
    localizer = DenseLocalizer(channels=[1], layers=[0], image_maps=[0], sigma=0.1)
    scores = Moments(2)
    scores.update(torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0], [7.0, 40.0]]))
    localizer.fit(scores)
    assert localizer.deviations.tolist() == pytest.approx([5**0.5, 15.0])


# Windows


def test_windows_are_a_stride_apart_and_the_last_ends_at_the_border():
    assert window_starts(256, 64, 4) == list(range(0, 193, 4))  # 49 per side, as in the paper for images of 256
    assert window_starts(70, 32, 16) == [0, 16, 32, 38]
    assert window_starts(32, 32, 4) == [0]


def test_windows_are_cut_at_their_starts_image_by_image_and_row_by_row():
    images = torch.rand(2, 3, 20, 24)
    windows = cut_windows(images, [0, 4, 12], [3, 16], 8)
    expected = [image[:, top : top + 8, left : left + 8] for image in images for top in (0, 4, 12) for left in (3, 16)]
    assert torch.equal(windows, torch.stack(expected))


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_features_of_windows_do_not_depend_on_the_number_per_pass(monkeypatch, count):
    monkeypatch.setattr(localization, "MAX_WINDOWS", count)
    localizer = WindowLocalizer([3], (40, 48), window=32, stride=4, sigma=4.0)
    images = torch.rand(2, 3, 40, 48)
    (features,) = localizer.describe(corners, images)
    assert torch.equal(features, images[:, :, 0:9:4, 0:17:4].permute(0, 2, 3, 1))


def test_a_density_is_fitted_to_every_fourth_window():
    localizer = WindowLocalizer([3], (64, 96), window=32, stride=4, sigma=4.0)
    images = torch.rand(1, 3, 64, 96)
    (features,) = localizer.describe(corners, images, fitting=True)
    assert torch.equal(features, images[:, :, 0:33:16, 0:65:16].permute(0, 2, 3, 1))


@pytest.mark.parametrize("position", [(0, 0), (2, 9), (8, 16)])
def test_an_anomalous_window_is_located_and_sets_the_score_of_the_image(position):
    localizer = WindowLocalizer([1], (64, 96), window=32, stride=4, sigma=4.0)
    distances = torch.ones(1, 9, 17)
    distances[0, position[0], position[1]] = 7
    result = localizer([distances], (64, 96))
    assert result.pred_score.tolist() == [7]
    row, column = divmod(int(result.anomaly_map.argmax()), 96)
    top, left = (4 * index for index in position)
    assert top <= row < top + 32
    assert left <= column < left + 32
    middle = result.anomaly_map[0, 0, top + 15 : top + 17, left + 15 : left + 17]
    assert middle.min() > 1.5
    far = result.anomaly_map[0, 0, (top + 32) % 64, (left + 48) % 96]
    assert far == pytest.approx(1, abs=0.01)


def test_equal_distances_of_windows_give_a_constant_map():
    localizer = WindowLocalizer([1], (40, 70), window=32, stride=16, sigma=1.0)
    anomaly_map = localizer([torch.full((2, 2, 4), 3.0)], (40, 70)).anomaly_map
    assert anomaly_map.shape == (2, 1, 40, 70)
    assert torch.allclose(anomaly_map, torch.tensor(3.0))


def test_a_pixel_in_two_windows_is_their_gaussian_weighted_mean():
    # Centres at 1.5 and 3.5; pixel 2 is 0.5 and 1.5 away: weights exp(-0.25/8) and exp(-2.25/8), ratio exp(1/4).
    weights = spread_matrix([0, 2], window=4, side=6, sigma=2.0)
    ratio = float(torch.tensor(0.25).exp())
    assert weights[2].tolist() == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])


def test_a_window_has_no_weight_outside_its_pixels():
    weights = spread_matrix([0, 2, 4], window=4, side=8, sigma=100.0)
    assert (weights > 0).tolist() == [[start <= pixel < start + 4 for start in (0, 2, 4)] for pixel in range(8)]
