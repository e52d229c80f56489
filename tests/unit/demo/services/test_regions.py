"""Mask, regions and verdict at a threshold, from a map that is kept."""

import time

import numpy as np
import pytest

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.predictions import gathered, look, mask_picture
from anomalib_defect_plugins.demo.services.regions import COLUMNS, Region, enlarged, find_regions, outline, table
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.run_model import LoadedModel, Thresholds

HEAT = np.zeros((4, 6), np.float32)
HEAT[0, 0], HEAT[1, 1] = 0.6, 0.8  # touch at a corner
HEAT[2:4, 4:6] = 0.9


class Constant(LoadedModel):
    """Gives the same map and score for any image, and counts how often it is asked."""

    def __init__(self, heat: np.ndarray, score: float, thresholds: tuple[float, float] = (0.5, 0.5)) -> None:
        super().__init__("nothing", Thresholds(*thresholds))
        self.heat, self.score, self.asked = heat, score, 0

    def _infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.asked += 1
        return {"pred_score": np.array([self.score], np.float32), "anomaly_map": self.heat[None, None]}


def photo(height: int = 64, width: int = 96) -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Photo("plate.png", pixels, (height, width))


def test_regions_are_listed_the_largest_first_with_area_box_and_mean():
    mask, regions = find_regions(HEAT, 0.5, HEAT.shape)
    assert mask.sum() == 6
    assert regions == [Region(4, 4, 2, 2, 2, pytest.approx(0.9)), Region(2, 0, 0, 2, 2, pytest.approx(0.7))]
    assert next(iter(table(regions))) == [4, 4, 2, 2, 2, pytest.approx(0.9)]
    assert COLUMNS[0] == "area"


def test_a_higher_threshold_leaves_less():
    assert [len(find_regions(HEAT, threshold, HEAT.shape)[1]) for threshold in (0.5, 0.7, 0.85, 0.95)] == [2, 2, 1, 0]


def test_areas_and_boxes_are_in_pixels_of_the_image():
    # Each pixel of the map lies under 3 x 2 of the image.
    _, regions = find_regions(HEAT, 0.5, (12, 12))
    assert regions[0] == Region(24, 8, 6, 4, 6, pytest.approx(0.9))


@pytest.mark.parametrize("size", [(4, 6), (9, 7), (37, 101)])
def test_areas_add_up_to_the_mask_that_is_downloaded(size: tuple[int, int]):
    mask, regions = find_regions(HEAT, 0.5, size)
    whole = enlarged(mask, size)
    assert whole.shape == size
    assert whole.sum() == sum(region.area for region in regions)
    for region in regions:
        box = whole[region.y : region.y + region.height, region.x : region.x + region.width]
        assert box[0].any()
        assert box[-1].any()
        assert box[:, 0].any()
        assert box[:, -1].any()


def test_the_outline_is_the_border_of_the_mask():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    assert outline(mask).sum() == 16
    assert not outline(mask)[2:5, 2:5].any()


def test_the_threshold_moves_verdict_and_mask_without_asking_the_model():
    model = Constant(HEAT, 0.7)
    looks = gathered(model, "constant", [look(model, photo())])
    found = {threshold: looks.look(0).at(threshold) for threshold in (0.3, 0.65, 0.75, 0.95)}
    assert [it.is_defective for it in found.values()] == [True, True, False, False]
    shares = [it.mask.mean() for it in found.values()]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert model.asked == 1
    assert looks.limits == (0, 1)
    assert looks.threshold == 0.5


def test_scores_that_are_not_scaled_have_limits_and_thresholds_of_their_own():
    model = Constant(10 * HEAT, 7, thresholds=(8, 5))
    looks = gathered(model, "constant", [look(model, photo())])
    assert looks.limits == pytest.approx((0, 9))
    assert looks.threshold == 5
    # The model's own verdict at its own threshold; both move by as much.
    assert [looks.look(0).at(threshold).is_defective for threshold in (5, 4.1, 3.9)] == [False, False, True]


@pytest.mark.parametrize("index", [-1, 1, "0", None, True, 0.0])
def test_an_image_that_is_not_there_is_told_of(index: object):
    model = Constant(HEAT, 0.7)
    looks = gathered(model, "constant", [look(model, photo())])
    with pytest.raises(InvalidInputError, match="there is no image"):
        looks.look(index)


def test_a_map_that_is_not_finite_is_told_of():
    with pytest.raises(InvalidInputError, match=r"map of plate\.png is not finite"):
        look(Constant(np.where(HEAT > 0, np.nan, HEAT), 0.5), photo())


def test_a_threshold_is_drawn_within_a_fraction_of_the_time_that_is_allowed():
    rng = np.random.default_rng(0)
    model = Constant(rng.random((256, 256), np.float32), 0.7)
    looks = gathered(model, "constant", [look(model, photo(3000, 4000))])
    least = float("inf")
    for _ in range(5):  # the machine may be busy
        start = time.thread_time()
        mask_picture(looks.look(0).at(0.6).mask)  # thousands of regions
        least = min(least, time.thread_time() - start)
    assert least < 0.15
