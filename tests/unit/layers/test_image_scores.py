"""Image scores computed from maps."""

import pytest
import torch

from anomalib_defect_plugins.layers import spread, top_mean


def test_top_mean_is_the_mean_of_the_highest_pixels() -> None:
    image = torch.zeros(1, 1, 100, 100)
    image[0, 0, :2, :5] = torch.arange(10, dtype=torch.float32).reshape(2, 5)
    assert float(top_mean(image, 0.0005)) == 7.0  # the mean of 5 to 9
    assert float(top_mean(image, 1e-9)) == 9.0


def test_top_mean_scores_images_independently() -> None:
    maps = torch.stack([torch.full((1, 4, 4), level) for level in (0.1, 0.7)])
    assert torch.allclose(top_mean(maps, 0.5), torch.tensor([0.1, 0.7]))


def test_spread_is_the_fourth_root_of_the_mean_fourth_power_of_the_deviations():
    # Mean 2.5; deviations -1.5, -0.5, 0.5, 1.5; (2 * 1.5^4 + 2 * 0.5^4) / 4 = 2.5625.
    maps = torch.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    assert spread(maps).tolist() == pytest.approx([2.5625**0.25])


def test_spread_does_not_depend_on_the_level_of_an_image():
    maps = torch.rand(2, 1, 8, 8)
    assert torch.allclose(spread(maps + 3), spread(maps), atol=1e-5)
    assert torch.allclose(spread(2 * maps), 2 * spread(maps), atol=1e-5)
