"""Distances to the nearest of the centres that k-means fits to a sample of features."""

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.nearest_center import CENTERS, SAMPLE_SIZE, FeatureSample, NearestCenter


def sampled(*parts: torch.Tensor) -> FeatureSample:
    sample = FeatureSample(parts[0].shape[-1])
    for part in parts:
        sample.update(part)
    return sample


def test_distance_is_that_to_the_nearest_centre_in_units_of_the_features():
    density = NearestCenter(2)
    points = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    density.fit(sampled(points.repeat(300, 1)))
    assert sorted(map(tuple, density.centers.unique(dim=0).tolist())) == [(0.0, 0.0), (10.0, 0.0)]
    others = torch.tensor([[3.0, 4.0], [10.0, -2.0], [7.0, 0.0]])
    assert density(others).tolist() == pytest.approx([5.0, 2.0, 3.0], abs=1e-3)


def test_the_scale_is_the_root_mean_square_distance_of_the_sample():
    torch.manual_seed(0)
    features = torch.randn(5000, 3)
    density = NearestCenter(3)
    density.fit(sampled(features))
    expected = torch.cdist(features, density.centers).amin(1).square().mean().sqrt()
    assert float(density.scale) == pytest.approx(float(expected), rel=1e-3)
    assert float(density.scale) < 0.5  # 512 centres are nearer than the mean, which is at sqrt(3)


def test_a_sample_holds_all_features_until_it_is_full_and_an_equal_share_of_each_part_afterwards():
    few = torch.arange(600.0)[:, None]
    assert sampled(few[:100], few[100:]).features.flatten().sort().values.tolist() == few.flatten().tolist()
    parts = [torch.full((SAMPLE_SIZE // 2, 1), float(value)) for value in range(10)]
    features = sampled(*parts).features.flatten()
    assert SAMPLE_SIZE <= len(features) <= 2 * SAMPLE_SIZE
    counts = features.unique(return_counts=True)[1]
    assert len(counts) == 10
    assert counts.float().std() / counts.float().mean() < 0.05


def test_a_sample_of_several_processes_is_that_of_all_features():
    torch.manual_seed(0)
    parts = [torch.randn(70, 2), torch.randn(40, 2)]
    samples = [sampled(part) for part in parts]
    sent = [[torch.tensor(len(part)), _padded(part)] for part in parts]
    columns = iter(zip(*sent, strict=True))
    samples[0].reduce(lambda _: torch.stack(next(columns)))
    assert torch.equal(samples[0].features.sort(0).values, torch.cat(parts).sort(0).values)


def _padded(part: torch.Tensor) -> torch.Tensor:
    return torch.cat([part, part.new_zeros(2 * SAMPLE_SIZE - len(part), part.shape[1])])


def test_fewer_features_than_centres_are_all_centres():
    features = torch.tensor([[1.0], [2.0], [4.0]])
    density = NearestCenter(1)
    density.fit(sampled(features))
    assert density.centers.shape == (CENTERS, 1)
    assert density(features).abs().max() < 1e-3


@pytest.mark.parametrize("features", [torch.empty(0, 2), torch.tensor([[1.0, torch.nan]])])
def test_no_finite_features_are_named(features):
    with pytest.raises(InvalidInputError, match="no finite features of normal training images"):
        NearestCenter(2).fit(sampled(features))
