"""Regions of an anomaly map: mask, list of defects and score agree at every threshold."""

import numpy as np
import pytest

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.regions import find_regions, region_score


@pytest.mark.parametrize("min_area", [1, 4, 9, 40])
@pytest.mark.parametrize("size", [(24, 20), (60, 41)])
def test_an_image_reaches_a_threshold_exactly_if_it_has_a_region(min_area: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        image_map = np.float32(rng.random((24, 20)))
        score = region_score(image_map, size, min_area)
        for threshold in [score, np.nextafter(np.float32(score), np.float32(2)), 0.3, 0.8]:
            mask, regions = find_regions(image_map, float(threshold), size, min_area)
            assert bool(regions) == mask.any() == (score >= threshold)


def test_small_regions_are_removed_from_mask_and_list() -> None:
    image_map = np.zeros((8, 8), np.float32)
    image_map[1:3, 1:3], image_map[5, 5] = 0.7, 0.9
    mask, regions = find_regions(image_map, 0.5, (16, 16), min_area=5)  # a pixel of the map is four of the image
    assert [region.area for region in regions] == [16]
    assert mask.sum() == 4
    assert not mask[5, 5]
    assert region_score(image_map, (16, 16), 5) == np.float32(0.7)
    assert region_score(image_map, (16, 16), 4) == np.float32(0.9)


def test_an_area_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(
        InvalidInputError, match=r"the minimum area of a defect is 65 pixels, more than an image of 8x8"
    ):
        region_score(np.zeros((8, 8), np.float32), (8, 8), 65)
