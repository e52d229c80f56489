"""Involution against its definition."""

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers import Involution


def by_definition(layer: Involution, x: Tensor) -> Tensor:
    """Compute it pixel by pixel: Y[k, i, j] is the sum over u, v of H[i, j, u, v, group of k] * X[k, i + u, j + v]."""
    _, channels, height, width = x.shape
    size, per_group = layer.kernel_size, channels // layer.groups
    kernels = layer.span(layer.reduce(x))  # eq. 3 of ISU-GAN, phi of a pixel's channels
    y = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            for u in range(size):
                for v in range(size):
                    row, column = i + u - size // 2, j + v - size // 2
                    if 0 <= row < height and 0 <= column < width:
                        for k in range(channels):
                            weight = kernels[:, k // per_group * size**2 + u * size + v, i, j]
                            y[:, k, i, j] += weight * x[:, k, row, column]
    return y


@pytest.mark.parametrize(("channels", "kernel_size", "group_channels"), [(8, 3, 4), (6, 5, 2), (4, 1, 4)])
@torch.no_grad()
def test_it_equals_its_definition(channels: int, kernel_size: int, group_channels: int) -> None:
    torch.manual_seed(0)
    layer = Involution(channels, kernel_size, group_channels).eval()
    x = torch.randn(2, channels, 6, 5)
    assert torch.allclose(layer(x), by_definition(layer, x), atol=1e-5)


def test_gradient_flows_to_the_input_and_to_every_weight() -> None:
    torch.manual_seed(0)
    layer = Involution(8, 3, 4)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad.abs().min() > 0
    assert all(weight.grad.abs().sum() > 0 for weight in layer.parameters())


@torch.no_grad()
def test_a_kernel_that_is_one_in_its_centre_is_the_identity() -> None:
    layer = Involution(32)
    layer.span.weight.zero_()
    layer.span.bias.copy_((torch.arange(2 * 49) % 49 == 24).float())
    x = torch.randn(1, 32, 9, 11)
    assert torch.allclose(layer(x), x)


@torch.no_grad()
def test_a_kernel_depends_on_its_own_pixel_only() -> None:
    layer = Involution(16, 3).eval()
    x = torch.randn(1, 16, 5, 5)
    changed = x.clone()
    changed[..., 2, 3] += 1
    differs = (layer.kernels(x) != layer.kernels(changed)).any(2).any(1)[0]
    assert differs.nonzero().tolist() == [[2, 3]]


def test_the_number_of_weights_is_that_of_a_hand_calculation() -> None:
    # 256 channels, reduction 4, 7 x 7, 16 groups: 256 * 64, norm 2 * 64, 64 * 784 and 784 biases
    assert sum(weight.numel() for weight in Involution(256).parameters()) == 16384 + 128 + 50176 + 784


@pytest.mark.parametrize(("arguments", "message"), [((8, 4, 4), "odd"), ((10, 3, 4), "multiple of group_channels, 4")])
def test_an_invalid_argument_is_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Involution(*arguments)
