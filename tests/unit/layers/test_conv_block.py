"""The conv-block: size, padding and negative slope."""

import pytest
import torch
from torch.nn import functional

from anomalib_defect_plugins.layers import ConvBlock


def test_a_block_keeps_the_size() -> None:
    assert ConvBlock(3, 5)(torch.rand(2, 3, 9, 14)).shape == (2, 5, 9, 14)


def test_borders_of_a_uniform_image_equal_its_middle() -> None:
    image = torch.full((2, 3, 9, 14), 0.7)
    result = ConvBlock(3, 5).eval()(image)
    assert torch.allclose(result, result[..., 4:5, 7:8].expand_as(result), atol=1e-6)


@pytest.mark.parametrize("slope", [0.2, 0.0])
def test_a_block_is_convolution_then_norm_then_leaky_relu(slope: float) -> None:
    block = ConvBlock(3, 5, slope)
    with torch.no_grad():
        block[1].weight.uniform_(0.5, 1.5)
        block[1].bias.uniform_(-0.5, 0.5)
    image = torch.rand(2, 3, 9, 14)
    padded = functional.pad(image, (1, 1, 1, 1), mode="reflect")
    hidden = functional.conv2d(padded, block[0].weight)
    mean, variance = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = (values[:, None, None] for values in (block[1].weight, block[1].bias))
    expected = (hidden - mean) / (variance + 1e-5).sqrt() * scale + shift
    assert torch.allclose(block(image), torch.where(expected > 0, expected, slope * expected), atol=1e-5)
