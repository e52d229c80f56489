"""Noise defects: SIDN's eq. 1, a normal image with Gaussian noise where the mask is."""

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import NoiseDefects


def content(generator: NoiseDefects, channels: int = 1) -> torch.Tensor:
    """Pixels (N, C) inside the masks of 16 defects on black images."""
    images = torch.zeros(16, channels, 128, 128)
    defective, mask = generator(images, torch.Generator().manual_seed(0))
    return defective.permute(0, 2, 3, 1)[mask[:, 0]]


def test_content_has_the_given_mean_and_deviation():
    pixels = content(NoiseDefects(mean=0.4, std=0.05))
    # Eight deviations lie between the mean and 0, so nothing is cut off; five standard errors of either statistic.
    assert pixels.mean() == pytest.approx(0.4, abs=5 * 0.05 / len(pixels) ** 0.5)
    assert pixels.std() == pytest.approx(0.05, abs=5 * 0.05 / (2 * len(pixels)) ** 0.5)


def test_noise_beyond_the_range_of_images_is_cut_off():
    pixels = content(NoiseDefects(mean=1.0, std=0.2))
    # Half of a Gaussian lies above its mean.
    assert (pixels == 1).float().mean() == pytest.approx(0.5, abs=5 * 0.5 / len(pixels) ** 0.5)


def test_each_channel_gets_noise_of_its_own():
    correlation = torch.corrcoef(content(NoiseDefects(std=0.1), channels=3).T)
    assert (correlation - torch.eye(3)).abs().max() < 0.1


def test_kinds_of_mask_can_be_chosen():
    _, mask = NoiseDefects(kinds=["stroke"])(torch.zeros(16, 1, 128, 128), torch.Generator().manual_seed(0))
    assert mask.float().mean((1, 2, 3)).max() < 0.071  # see test_masks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 1.5}, "mean of NoiseDefects is 1.5; it must be within 0 and 1"),
        ({"std": 0.0}, "std of NoiseDefects is 0.0; it must be within 0.01 and 1"),
        (
            {"kinds": ["dots"]},
            r"kinds of NoiseDefects is \['dots'\]; it must be a list of some of blobs, ellipse, stroke",
        ),
        ({"kinds": "stroke"}, "kinds of NoiseDefects is 'stroke'; it must be a list"),
        ({"kinds": []}, r"kinds of NoiseDefects is \[\]; it must be a list"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(arguments: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        NoiseDefects(**arguments)
