"""Distances to the nearest of the centres that k-means fits to a sample of features."""

import threading
from functools import partial

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.nearest_center import (
    CENTERS,
    SAMPLE_SIZE,
    FeatureSample,
    NearestCenter,
    NearestResidual,
    PositionedSample,
)


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


def test_the_exported_distances_are_the_same(monkeypatch):
    torch.manual_seed(0)
    density, features = NearestCenter(6), torch.randn(2, 5, 7, 6)
    density.centers.normal_()
    expected = (features[..., None, :] - density.centers).square().sum(-1).amin(-1).sqrt()
    assert torch.allclose(density(features), expected, atol=1e-5)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(density(features), expected, atol=1e-5)


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


def test_few_features_share_centres_so_that_their_distances_set_a_scale():
    torch.manual_seed(0)
    features = torch.randn(64, 8)  # the coarse features of one image of 128x128
    density = NearestCenter(8)
    density.fit(sampled(features))
    assert density.centers.shape == (CENTERS, 8)
    assert len(density.centers.unique(dim=0)) == 16
    distances = density(torch.randn(64, 8)) / density.scale
    assert 1 < distances.mean() < 2


@pytest.mark.parametrize("features", [torch.empty(0, 2), torch.tensor([[1.0, torch.nan]])])
def test_no_finite_features_are_named(features):
    with pytest.raises(InvalidInputError, match="no finite features of normal training images"):
        NearestCenter(2).fit(sampled(features))


def residual_of(images: torch.Tensor, keep: torch.Tensor | None = None) -> NearestResidual:
    density = NearestResidual(images.shape[-1])
    sample = density.collector("cpu")
    for part in range(len(images)):
        sample.update(images[part : part + 1], None if keep is None else keep[part : part + 1])
    density.fit(sample)
    return density


def test_the_mean_at_each_position_is_subtracted():
    """Two positions with features about 0 and 10: each is far from what is normal at the other one."""
    torch.manual_seed(0)
    normal = torch.tensor([0.0, 10.0]).reshape(1, 1, 2, 1) + 0.1 * torch.randn(2000, 1, 2, 1)
    density = residual_of(normal)
    expected = (normal.sum(0) + normal.mean()) / 2001  # the overall mean counts for one image
    torch.testing.assert_close(density.mean, expected)
    assert density(normal).max() < 0.3
    swapped = density(normal.flip(2))
    assert swapped.min() > 9
    without_itself = 2001 / 2000 * density(normal).square().mean().sqrt()
    assert float(density.scale) == pytest.approx(float(without_itself), rel=1e-3)


def test_what_is_left_out_is_in_neither_mean_nor_centres():
    normal = torch.zeros(3, 1, 2, 1)
    keep = torch.ones(3, 1, 2, dtype=torch.bool)
    normal[0, 0, 1], keep[0, 0, 1] = torch.nan, False
    density = residual_of(normal, keep)
    assert density.mean.flatten().tolist() == [0, 0]
    assert density.centers.abs().max() == 0


def test_a_position_without_features_has_the_overall_mean():
    keep = torch.tensor([True, False]).expand(4, 1, 2)
    assert residual_of(torch.full((4, 1, 2, 1), 3.0), keep).mean.flatten().tolist() == [3, 3]


def test_centres_are_fitted_to_the_residuals_of_each_image_without_itself():
    """With the mean of all positions, 4, as one more image: 0 and 8 of one image alone differ by 4 from it."""
    density = residual_of(torch.tensor([0.0, 8.0]).reshape(1, 1, 2, 1))
    assert density.mean.flatten().tolist() == [2, 6]
    assert density.centers.unique().tolist() == [0]
    assert float(density.scale) == 4


def test_means_are_interpolated_for_maps_of_another_size_and_survive_a_state_dict():
    density = residual_of(torch.tensor([0.0, 10.0]).reshape(1, 1, 2, 1).repeat(2, 1, 1, 1))
    loaded = NearestResidual(1)
    loaded.load_state_dict(density.state_dict())
    features = torch.randn(2, 2, 4, 1)
    torch.testing.assert_close(loaded(features), density(features))
    steps = torch.nn.functional.interpolate(density.mean.reshape(1, 1, 1, 2), (2, 4), mode="bilinear")
    torch.testing.assert_close(density(features), density.distances(features - steps[0, 0][..., None]))


def test_means_of_another_dimension_are_refused():
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        NearestResidual(2).load_state_dict(NearestResidual(1).state_dict() | {"centers": torch.zeros(CENTERS, 2)})


@pytest.mark.parametrize("images_of_first", [2, 3])
def test_two_processes_end_with_the_sums_and_features_of_all_images_even_if_one_has_none(images_of_first):
    images = torch.randn(3, 2, 3, 4)
    parts = [PositionedSample(4), PositionedSample(4)]
    for sample, part in zip(parts, images.split([images_of_first, 3 - images_of_first]), strict=True):
        if len(part):
            sample.update(part)
    values, barrier = [None, None], threading.Barrier(2, timeout=20)

    def gather(rank: int, value: torch.Tensor) -> torch.Tensor:
        values[rank] = value
        barrier.wait()
        stacked = torch.stack(list(values))
        barrier.wait()
        return stacked

    # Threads are the processes.
    workers = [threading.Thread(target=one.reduce, args=[partial(gather, rank)]) for rank, one in enumerate(parts)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part in parts:
        torch.testing.assert_close(part.sums[..., :-1], images.double().sum(0))
        assert len(part.features) == 18


def test_positions_are_exact_in_half_precision():
    """2,560 positions have more digits than bfloat16."""
    images = torch.randn(2, 80, 32, 1, dtype=torch.bfloat16)
    sample = PositionedSample(1)
    sample.update(images)
    assert sample.features[:, -1].unique().tolist() == list(range(2560))
