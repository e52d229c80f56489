"""Transposed convolutions to few channels."""

import pytest
import torch
from torch import nn

from anomalib_defect_plugins.layers import NarrowTransposed


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (5, 1, 0), (4, 2, 1), (4, 2, 3)])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("size", [(9, 12), (8, 12), (10, 6)])
def test_the_exported_convolution_is_the_transposed_one(
    kernel_size: int,
    stride: int,
    padding: int,
    channels: int,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = NarrowTransposed(6, channels, kernel_size, stride, padding)
    image = torch.rand(2, 6, *size, generator=torch.Generator().manual_seed(0))
    expected = layer(image)
    assert torch.equal(nn.ConvTranspose2d.forward(layer, image), expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert layer(image).shape == expected.shape
    assert torch.allclose(layer(image), expected, atol=1e-6)
