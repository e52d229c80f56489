"""Image scores of anomaly maps."""

import torch

from anomalib_defect_plugins.layers import top_mean


def test_the_score_is_the_mean_of_the_highest_pixels() -> None:
    image = torch.zeros(1, 1, 100, 100)
    image[0, 0, :2, :5] = torch.arange(10, dtype=torch.float32).reshape(2, 5)
    assert float(top_mean(image, 0.0005)) == 7.0  # the mean of 5 to 9
    assert float(top_mean(image, 1e-9)) == 9.0


def test_images_are_scored_independently() -> None:
    maps = torch.stack([torch.full((1, 4, 4), level) for level in (0.1, 0.7)])
    assert torch.allclose(top_mean(maps, 0.5), torch.tensor([0.1, 0.7]))
