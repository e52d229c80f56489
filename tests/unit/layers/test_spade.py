"""SPADE: scale and shift for each pixel, eq. 1 of https://arxiv.org/abs/1903.07291."""

import pytest
import torch

from anomalib_defect_plugins.layers import Moments, Spade, at_size, blend, moments_of


@pytest.fixture
def doubling() -> Spade:
    """Block for features of one channel with the scale 1 + A and the shift 3 A."""
    block = Spade(1, 1, hidden=1)
    for conv, weight in ((block.shared[0], 1.0), (block.scale, 1.0), (block.shift, 3.0)):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
        conv.weight.data[0, 0, 1, 1] = weight  # the middle of the kernel
    return block


def test_normalised_features_are_scaled_and_shifted_according_to_the_map(doubling: Spade) -> None:
    # With mean 2 and variance 1, the values become -1 and 1; scaled by 1 + 1 and shifted by 3 where A is 1.
    x = torch.tensor([1.0, 3.0, 1.0, 3.0]).reshape(1, 1, 2, 2)
    control = torch.tensor([[0.0, 0.0], [1.0, 1.0]])[None, None]
    expected = torch.tensor([[-1.0, 1.0], [1.0, 5.0]])
    torch.testing.assert_close(doubling(x, control)[0, 0], expected, atol=1e-4, rtol=0)


def test_a_map_of_zeros_without_biases_reduces_it_to_instance_norm(doubling: Spade) -> None:
    x = torch.randn(2, 1, 6, 6)
    expected = torch.nn.functional.instance_norm(x)
    torch.testing.assert_close(doubling(x, torch.zeros(2, 1, 6, 6)), expected)


def test_a_map_of_one_pixel_equals_a_constant_map_including_the_borders() -> None:
    torch.manual_seed(0)
    block, x, label = Spade(4, 3), torch.randn(2, 4, 8, 6), torch.rand(2, 3, 1, 1)
    torch.testing.assert_close(block(x, label), block(x, label.expand(-1, -1, 8, 6)), atol=1e-5, rtol=1e-5)


def test_the_map_has_an_effect_up_to_two_pixels_away() -> None:
    # Two 3x3 convolutions: scale and shift of a pixel depend on the map up to two pixels away.
    torch.manual_seed(0)
    block, x = Spade(4, 1), torch.randn(1, 4, 12, 12)
    control = torch.zeros(1, 1, 12, 12)
    before = block(x, control)
    control[..., :4] = 1
    changed = (block(x, control) - before).abs().amax((0, 1, 2)) > 0
    assert changed.tolist() == [True] * 6 + [False] * 6


def test_the_number_of_weights_is_that_of_the_paper() -> None:
    # 128 hidden channels, 3x3 kernels: K -> 128, then twice 128 -> C; none in the norm.
    weights = sum(weight.numel() for weight in Spade(64, 5).parameters())
    assert weights == (5 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * 64


def test_its_own_moments_do_not_change_the_result_and_other_moments_are_used(doubling: Spade) -> None:
    x, control = torch.randn(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(doubling(x, control, moments_of(x)), doubling(x, control), atol=1e-5, rtol=0)
    # (5 - 1) / sqrt(4) is 2, and the map is 0.
    moments = Moments(torch.tensor(1.0), torch.tensor(4.0))
    result = doubling(torch.full((1, 1, 2, 2), 5.0), torch.zeros(1, 1, 2, 2), moments)
    torch.testing.assert_close(result, torch.full((1, 1, 2, 2), 2.0), atol=1e-4, rtol=0)


def test_moments_are_blended_for_each_pixel() -> None:
    first, second = (Moments(*torch.full((2, 1, 1, 1, 1), value)) for value in (1.0, 3.0))
    weight = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)
    for values in blend(first, second, weight):
        assert values.flatten().tolist() == [1.0, 1.5, 3.0]


@pytest.mark.parametrize(
    ("control", "size", "expected"),
    [
        ([[1.0, 0.0, 0.0, 0.0]] * 4, (2, 2), [[0.5, 0.0]] * 2),
        ([[1.0, 0.0]] * 2, (4, 4), [[1.0, 1.0, 0.0, 0.0]] * 4),
    ],
    ids=["down", "up"],
)
def test_maps_are_resized_by_area_averaging(
    control: list[list[float]], size: tuple[int, int], expected: list[list[float]]
) -> None:
    assert at_size(torch.tensor(control)[None, None], size)[0, 0].tolist() == expected
