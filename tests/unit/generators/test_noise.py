"""Noise defects: a normal image with Gaussian noise inside the mask, SIDN eq. 1."""

from typing import Any

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import NoiseDefects


def content(generator: NoiseDefects, channels: int = 1) -> torch.Tensor:
    """Return the pixels (N, C) inside the masks of 16 defects on black images."""
    images = torch.zeros(16, channels, 128, 128)
    defective, mask = generator(images, torch.Generator().manual_seed(0))
    return defective.permute(0, 2, 3, 1)[mask[:, 0]]


def test_content_has_the_given_mean_and_deviation() -> None:
    pixels = content(NoiseDefects(mean=0.4, std=0.05))
    # The mean is eight standard deviations from 0, so nothing is clipped; within five standard errors.
    assert pixels.mean() == pytest.approx(0.4, abs=5 * 0.05 / len(pixels) ** 0.5)
    assert pixels.std() == pytest.approx(0.05, abs=5 * 0.05 / (2 * len(pixels)) ** 0.5)


def test_noise_outside_the_range_of_images_is_clipped() -> None:
    pixels = content(NoiseDefects(mean=1.0, std=0.2))
    # Half of the values exceed the mean.
    assert (pixels == 1).float().mean() == pytest.approx(0.5, abs=5 * 0.5 / len(pixels) ** 0.5)


def test_channels_have_independent_noise() -> None:
    correlation = torch.corrcoef(content(NoiseDefects(std=0.1), channels=3).T)
    assert (correlation - torch.eye(3)).abs().max() < 0.1


def test_kinds_of_mask_can_be_chosen() -> None:
    _, mask = NoiseDefects(kinds=["stroke"])(torch.zeros(16, 1, 128, 128), torch.Generator().manual_seed(0))
    assert mask.float().mean((1, 2, 3)).max() < 0.071  # see test_masks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 1.5}, "mean of NoiseDefects is 1.5; it must be from 0 to 1"),
        ({"std": 0.0}, "std of NoiseDefects is 0.0; it must be from 0.01 to 1"),
        (
            {"kinds": ["dots"]},
            r"kinds of NoiseDefects is \['dots'\]; it must be a list of some of blobs, ellipse, stroke",
        ),
        ({"kinds": "stroke"}, "kinds of NoiseDefects is 'stroke'; it must be a list"),
        ({"kinds": []}, r"kinds of NoiseDefects is \[\]; it must be a list"),
    ],
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        NoiseDefects(**arguments)
