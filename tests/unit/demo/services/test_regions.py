"""Mask, regions and predicted label at a threshold, from a stored anomaly map."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.regions import (
    REGION_COLUMNS,
    Region,
    enlarge_mask,
    find_regions,
    outline,
    region_rows,
)
from anomalib_defect_plugins.demo.services.predictions import collect_predictions, mask_outline_uri, predict_photo
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.run_model import LoadedModel, Thresholds

approx: Any = pytest.approx

ANOMALY_MAP = np.zeros((4, 6), np.float32)
ANOMALY_MAP[0, 0], ANOMALY_MAP[1, 1] = 0.6, 0.8  # touch at a corner
ANOMALY_MAP[2:4, 4:6] = 0.9


class Constant(LoadedModel):
    """Returns the same map and score for any image, and counts its calls."""

    def __init__(self, anomaly_map: np.ndarray, score: float, thresholds: tuple[float, float] = (0.5, 0.5)) -> None:
        super().__init__("nothing", Thresholds(*thresholds))
        self.anomaly_map, self.score, self.calls = anomaly_map, score, 0

    def _infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"pred_score": np.array([self.score], np.float32), "anomaly_map": self.anomaly_map[None, None]}


def photo(height: int = 64, width: int = 96) -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Photo("plate.png", pixels, (height, width))


def test_regions_are_listed_largest_first_with_area_box_and_mean() -> None:
    mask, regions = find_regions(ANOMALY_MAP, 0.5, ANOMALY_MAP.shape)
    assert mask.sum() == 6
    assert regions == [Region(4, 4, 2, 2, 2, approx(0.9)), Region(2, 0, 0, 2, 2, approx(0.7))]
    assert next(iter(region_rows(regions))) == (4, 4, 2, 2, 2, approx(0.9))
    assert REGION_COLUMNS[0] == "area"


def test_a_higher_threshold_leaves_fewer_regions() -> None:
    assert [
        len(find_regions(ANOMALY_MAP, threshold, ANOMALY_MAP.shape)[1]) for threshold in (0.5, 0.7, 0.85, 0.95)
    ] == [2, 2, 1, 0]


def test_areas_and_boxes_are_in_pixels_of_the_image() -> None:
    # Each pixel of the map lies under 3 x 2 of the image.
    _, regions = find_regions(ANOMALY_MAP, 0.5, (12, 12))
    assert regions[0] == Region(24, 8, 6, 4, 6, approx(0.9))


@pytest.mark.parametrize("size", [(4, 6), (9, 7), (37, 101)])
def test_areas_add_up_to_the_enlarged_mask(size: tuple[int, int]) -> None:
    mask, regions = find_regions(ANOMALY_MAP, 0.5, size)
    whole = enlarge_mask(mask, size)
    assert whole.shape == size
    assert whole.sum() == sum(region.area for region in regions)
    for region in regions:
        box = whole[region.y : region.y + region.height, region.x : region.x + region.width]
        assert box[0].any()
        assert box[-1].any()
        assert box[:, 0].any()
        assert box[:, -1].any()


def test_the_outline_is_the_border_of_the_mask() -> None:
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    assert outline(mask).sum() == 16
    assert not outline(mask)[2:5, 2:5].any()


def test_the_threshold_changes_label_and_mask_without_running_the_model() -> None:
    model = Constant(ANOMALY_MAP, 0.7)
    predictions = collect_predictions(model, "constant", [predict_photo(model, photo())])
    results = {threshold: predictions.get(0).apply_threshold(threshold) for threshold in (0.3, 0.65, 0.75, 0.95)}
    assert [result.is_defective for result in results.values()] == [True, True, False, False]
    shares = [result.mask.mean() for result in results.values()]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[1] > 0
    assert shares[2:] == [0, 0]  # an image that is normal has no defects
    assert model.calls == 1
    assert predictions.limits == (0, 1)
    assert predictions.threshold == 0.5


def test_scores_that_are_not_normalized_have_other_limits_and_thresholds() -> None:
    model = Constant(10 * ANOMALY_MAP, 7, thresholds=(8, 5))
    predictions = collect_predictions(model, "constant", [predict_photo(model, photo())])
    assert predictions.limits == approx((0, 9))
    assert predictions.threshold == 5
    # At the model's own threshold, its own label; the threshold for scores is shifted by as much.
    assert [predictions.get(0).apply_threshold(threshold).is_defective for threshold in (5, 4.1, 3.9)] == [
        False,
        False,
        True,
    ]


def test_scores_and_pixels_at_the_threshold_are_defective() -> None:
    prediction = predict_photo(Constant(ANOMALY_MAP, 0.7, thresholds=(0.7, 0.9)), photo())
    result = prediction.apply_threshold(0.9)
    assert result.is_defective
    assert find_regions(ANOMALY_MAP, 0.9, ANOMALY_MAP.shape)[0].sum() == 4


def test_a_model_without_thresholds_has_a_map_and_no_label() -> None:
    model = Constant(1000 * ANOMALY_MAP, 700, thresholds=(math.nan, math.nan))
    predictions = collect_predictions(model, "constant", [predict_photo(model, photo())])
    assert predictions.limits == approx((0, 900))
    assert predictions.threshold == approx(450)
    result = predictions.get(0).apply_threshold(predictions.threshold)
    assert result.is_defective is None
    assert result.regions


@pytest.mark.parametrize("index", [-1, 1, "0", None, True, 0.0])
def test_an_unknown_image_is_refused(index: object) -> None:
    model = Constant(ANOMALY_MAP, 0.7)
    predictions = collect_predictions(model, "constant", [predict_photo(model, photo())])
    with pytest.raises(InvalidInputError, match="there is no image"):
        predictions.get(index)


def test_a_map_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"map of plate\.png is not finite"):
        predict_photo(Constant(np.where(ANOMALY_MAP > 0, np.nan, ANOMALY_MAP), 0.5), photo())


def test_a_threshold_is_applied_at_the_size_of_the_display_and_not_to_each_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[tuple[int, ...]] = []
    label = ndimage.label

    def recorded(mask: np.ndarray, structure: np.ndarray) -> Any:
        sizes.append(mask.shape)
        return label(mask, structure)

    monkeypatch.setattr(ndimage, "label", recorded)
    model = Constant(np.random.default_rng(0).random((256, 256), np.float32), 0.7)
    predictions = collect_predictions(model, "constant", [predict_photo(model, photo(3000, 4000))])
    result = predictions.get(0).apply_threshold(0.6)
    assert result.regions
    assert sizes == 2 * [result.mask.shape] == 2 * [(576, 768)]
    assert len(mask_outline_uri(result.mask)) < 100_000
    assert model.calls == 1
