"""Defects of an image agree with its verdict, and a crack in pieces is one."""

import numpy as np
import pytest

from anomalib_defect_plugins.demo.services.defects import find_defects

SIZE = (100, 200)


def make_map() -> np.ndarray:
    """A map of 0.1 with a crack of 0.8 in nine pieces of 10 pixels, 2 pixels apart, and a spot of 0.6 far from it."""
    anomaly_map = np.full(SIZE, 0.1, np.float32)
    for start in range(10, 118, 12):
        anomaly_map[40:43, start : start + 10] = 0.8
    anomaly_map[80:90, 180:190] = 0.6
    return anomaly_map


def test_a_crack_in_pieces_is_one_defect() -> None:
    mask, defects = find_defects(make_map(), 0.5, SIZE, is_defective=True)
    assert [(defect.area, defect.x, defect.y, defect.width, defect.height) for defect in defects] == [
        (3 * (9 * 12 - 2), 10, 40, 106, 3),
        (100, 180, 80, 10, 10),
    ]
    assert mask.sum() == sum(defect.area for defect in defects)


def test_a_normal_image_has_no_defects_although_pixels_are_above_the_threshold() -> None:
    mask, defects = find_defects(make_map(), 0.5, SIZE, is_defective=False)
    assert not mask.any()
    assert defects == []


@pytest.mark.parametrize("threshold", [0.81, 2])
def test_a_defective_image_has_a_defect_although_no_pixel_reaches_the_threshold(threshold: float) -> None:
    mask, defects = find_defects(make_map(), threshold, SIZE, is_defective=True)
    assert [(defect.x, defect.y) for defect in defects] == [(10, 40)]
    assert mask[41, 15]


def test_small_regions_do_not_become_a_large_one() -> None:
    # Each piece of the crack has 30 pixels.
    _, defects = find_defects(make_map(), 0.5, SIZE, is_defective=None, min_area=31)
    assert [defect.area for defect in defects] == [100]
