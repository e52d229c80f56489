"""The Gaussian density against scikit-learn and a hand calculation."""

import math

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.density import GaussianDensity, Moments, TextureDensity
from anomalib_defect_plugins.layers.nearest_center import NearestCenter


def observed(*parts: torch.Tensor) -> Moments:
    moments = Moments(parts[0].shape[-1])
    for part in parts:
        moments.update(part)
    return moments


def correlated(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    """Return correlated features with unequal variances and a mean far from 0."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=rng) * torch.logspace(-1, 1, dimension)
    return torch.randn(count, dimension, generator=rng) @ mixing + 20


@pytest.mark.parametrize(("count", "dimension"), [(500, 6), (12, 30), (40, 40)])
def test_distances_match_scikit_learn(count, dimension):
    features, others = correlated(count, dimension), correlated(9, dimension, seed=1)
    density = GaussianDensity(dimension)
    density.fit(observed(features[:5], features[5:]))
    expected = LedoitWolf().fit(features.double().numpy()).mahalanobis(others.double().numpy()) ** 0.5
    np.testing.assert_allclose(density(others).numpy(), expected, rtol=2e-3)


@pytest.mark.parametrize(("count", "dimension"), [(500, 6), (12, 30), (40, 40)])
def test_mean_covariance_and_shrinkage_match_scikit_learn(count, dimension):
    features = correlated(count, dimension)
    mean, covariance, shrinkage = observed(features).ledoit_wolf()
    expected = LedoitWolf().fit(features.double().numpy())
    assert shrinkage == pytest.approx(expected.shrinkage_, rel=1e-6)
    np.testing.assert_allclose(mean.numpy(), expected.location_)
    np.testing.assert_allclose(covariance.numpy(), expected.covariance_, rtol=1e-6, atol=1e-6)


def test_shrinkage_of_four_points_matches_a_hand_calculation():
    # Covariance diag(2, 1/2), mean variance 5/4. Error (34/4 - 17/4) / 4 = 17/16, spread 17/4 - 2 (5/4)² = 9/8, so the
    # shrinkage is 17/18 and the variances are 2/18 + 17/18 * 5/4 = 31/24 and 1/36 + 17/18 * 5/4 = 29/24.
    points = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    moments = observed(points)
    _, covariance, shrinkage = moments.ledoit_wolf()
    assert shrinkage == pytest.approx(17 / 18)
    assert covariance.tolist() == [[pytest.approx(31 / 24), 0], [0, pytest.approx(29 / 24)]]
    density = GaussianDensity(2)
    density.fit(moments)
    expected = [0.0, math.sqrt(24 / 31), 3 * math.sqrt(24 / 29)]
    assert density(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -3.0]])).tolist() == pytest.approx(expected, rel=1e-5)


def test_each_position_of_a_map_counts_as_a_feature():
    features = correlated(24, 3)
    whole = observed(features).ledoit_wolf()
    maps = observed(features.view(2, 3, 4, 3)).ledoit_wolf()
    assert all(torch.allclose(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(whole, maps, strict=True))


def test_sums_of_several_processes_add_up_to_the_density_of_all_features():
    features = correlated(30, 4)
    parts = [observed(features[:7]), observed(features[7:])]
    others = {id(value): getattr(parts[1], name) for name, value in vars(parts[0]).items()}
    parts[0].reduce(lambda value: torch.stack([value, others[id(value)]]))
    for result, expected in zip(parts[0].ledoit_wolf(), observed(features).ledoit_wolf(), strict=True):
        assert torch.allclose(torch.as_tensor(result), torch.as_tensor(expected))


def test_constant_features_have_finite_distances():
    density = GaussianDensity(3)
    density.fit(observed(torch.full((5, 3), 0.7)))
    assert density(torch.tensor([[0.7, 0.7, 0.7], [0.7, 0.7, 0.8]])).isfinite().all()


def test_a_single_image_is_rejected():
    with pytest.raises(InvalidInputError, match="at least two normal training images, but there are 1: add some"):
        observed(torch.ones(1, 3)).ledoit_wolf()


def test_features_that_are_not_finite_are_rejected():
    with pytest.raises(InvalidInputError, match=r"not finite: lower --model\.learning_rate"):
        observed(torch.tensor([[1.0, 2.0], [math.nan, 1.0]])).ledoit_wolf()


# Density of a texture


def random_maps(seed: int, images: int = 4) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(images, channels, side, side) for channels, side in ((2, 16), (3, 8), (4, 4))]


def fitted(maps: list[torch.Tensor]) -> TextureDensity:
    texture = TextureDensity([2, 3, 4])
    moments = Moments(9)
    moments.update(texture.describe(maps))
    texture.density.fit(moments)
    return texture


def test_a_position_is_described_by_all_maps_at_the_resolution_of_the_second():
    maps = random_maps(0)
    features = TextureDensity([2, 3, 4]).describe(maps)
    assert features.shape == (4, 8, 8, 9)
    assert torch.equal(features[..., 2:5], maps[1].permute(0, 2, 3, 1))
    assert torch.allclose(features[0, 2, 3, :2], maps[0][0, :, 4:6, 6:8].mean((1, 2)))


def test_the_resolution_of_the_positions_can_be_that_of_the_first_map():
    maps = random_maps(0)[1:]
    features = TextureDensity([3, 4], at=0).describe(maps)
    assert features.shape == (4, 8, 8, 7)
    assert torch.equal(features[..., :3], maps[0].permute(0, 2, 3, 1))


def test_pooled_maps_are_means_of_three_by_three_positions_that_are_fewer_at_borders():
    (features,) = TextureDensity([1], at=0, pool=True).describe([torch.arange(9.0).reshape(1, 1, 3, 3)])
    assert features[..., 0].tolist() == [[2.0, 2.5, 3.0], [3.5, 4.0, 4.5], [5.0, 5.5, 6.0]]


@pytest.mark.parametrize("density", [GaussianDensity, NearestCenter])
def test_distances_of_a_texture_are_in_units_of_those_of_normal_images(density):
    maps = random_maps(0, images=64)
    texture = TextureDensity([2, 3, 4], density=density)
    collector = texture.density.collector("cpu")
    collector.update(texture.describe(maps))
    texture.density.fit(collector)
    assert float(texture(maps, (8, 8)).square().mean()) == pytest.approx(1, abs=0.05)


def test_the_mean_square_of_the_distances_of_normal_images_is_one():
    maps = random_maps(0, images=64)
    features = TextureDensity([2, 3, 4]).describe(maps)
    distances = fitted(maps).density(features) / 9**0.5
    assert float(distances.square().mean()) == pytest.approx(1, abs=0.02)


def test_a_position_unlike_the_texture_is_the_farthest_wherever_it_is():
    texture, maps = fitted(random_maps(0, images=64)), random_maps(1, images=1)
    maps[1][0, :, 2, 5] += 20
    distances = texture(maps, (64, 64))
    assert distances.shape == (1, 1, 64, 64)
    row, column = divmod(int(distances.flatten().argmax()), 64)
    assert (row // 8, column // 8) == (2, 5)
