"""Geometry of the generators: rectangles that fit, positions that differ."""

import numpy as np
import pytest

from anomalib_defect_plugins.generators.geometry import log_uniform, rectangle_size, two_positions


def test_a_rectangle_has_the_requested_area_and_aspect() -> None:
    # 0.08 of 100 x 200 pixels is 1600; with aspect 4 that is 20 x 80.
    assert rectangle_size((100, 200), 0.08, 4.0) == (20, 80)


def test_a_rectangle_is_cut_to_fit_into_the_image_and_at_least_two_pixels_wide() -> None:
    assert rectangle_size((32, 400), 0.2, 0.25) == (32, 25)  # 2560 pixels: 101 x 25
    assert rectangle_size((32, 400), 0.2, 0.25, margin=1) == (30, 25)
    assert rectangle_size((32, 32), 0.0001, 1.0) == (2, 2)


@pytest.mark.parametrize("size", [(32, 32), (32, 400), (300, 40)], ids=str)
def test_two_positions_are_inside_and_half_a_patch_apart(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    patch = (size[0], size[1] // 2)
    for _ in range(50):
        first, second = two_positions(size, patch, rng)
        assert first[0] == second[0] == 0
        assert 2 * abs(first[1] - second[1]) >= patch[1]
        assert min(first[1], second[1]) >= 0
        assert max(first[1], second[1]) + patch[1] <= size[1]


def test_log_uniform_numbers_are_as_often_below_as_above_the_geometric_mean() -> None:
    numbers = log_uniform(np.random.default_rng(0), (0.1, 10), 1000)
    assert numbers.min() >= 0.1
    assert numbers.max() <= 10
    assert (numbers < 1).mean() == pytest.approx(0.5, abs=5 * 0.5 / 1000**0.5)
