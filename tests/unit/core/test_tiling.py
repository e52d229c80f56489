"""Tiles cover an image, end with it, and have weights that add up everywhere."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.tiling import Box, check_tiles, grid, side_weights, starts, strips, weights_of


@pytest.mark.parametrize(
    ("length", "size", "overlap", "expected"),
    [(100, 40, 10, [0, 30, 60]), (101, 40, 10, [0, 20, 40, 61]), (40, 40, 10, [0]), (30, 40, 10, [0])],
)
def test_tiles_are_spread_evenly_and_the_last_one_ends_with_the_image(
    length: int, size: int, overlap: int, expected: list[int]
) -> None:
    assert starts(length, size, overlap) == expected


@given(length=st.integers(1, 400), size=st.integers(16, 90), data=st.data())
def test_neighbours_share_at_least_the_overlap_and_every_pixel_has_a_weight(
    length: int, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    first = starts(length, size, overlap)
    total = np.zeros(length)
    for start in first:
        stop = min(start + size, length)
        total[start:stop] += side_weights(start, stop, length, overlap)
    assert first[-1] + size >= length
    assert all(start + size - following >= overlap for start, following in pairwise(first))
    assert (total > 0).all()


@given(length=st.integers(1, 400), size=st.integers(16, 90), limit=st.integers(1, 200), data=st.data())
def test_strips_cover_a_side_once_and_have_all_tiles_that_cover_them(
    length: int, size: int, limit: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    covered = []
    for columns, firsts in strips(length, size, overlap, limit):
        pixels = range(columns.start, columns.stop)
        covered += pixels
        expected = [first for first in starts(length, size, overlap) if {*range(first, first + size)} & {*pixels}]
        assert firsts == expected
        assert len(pixels) >= limit or columns.stop == length
    assert covered == list(range(length))


def test_the_pixels_next_to_an_inner_side_are_not_used() -> None:
    # Of an overlap of 8 pixels, a quarter has no weight, half of it is a ramp, and a quarter has all weight.
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    assert side_weights(20, 40, 100, 8)[:8].tolist() == pytest.approx(expected)
    assert side_weights(20, 40, 100, 8)[-8:].tolist() == pytest.approx(expected[::-1])
    assert side_weights(0, 20, 20, 8).tolist() == [1] * 20


def test_weights_are_those_of_both_sides() -> None:
    weights = weights_of(Box(0, 10, 20, 30), 40, 30, 4)
    assert weights.shape == (20, 20)
    assert weights[0].tolist() == side_weights(10, 30, 30, 4).tolist()
    assert weights[:, -1].tolist() == side_weights(0, 20, 40, 4).tolist()
    assert [box[:2] for box in grid(40, 30, 20, 4)] == [(top, left) for top in (0, 10, 20) for left in (0, 10)]


@pytest.mark.parametrize(("size", "overlap"), [(15, 0), (0, 0), (64, 33), (64, -1)])
def test_sizes_that_do_not_work_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(InvalidInputError, match=r"--tile is|--overlap is"):
        check_tiles(size, overlap, ("--tile", "--overlap"))
