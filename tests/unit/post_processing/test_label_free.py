"""Thresholds without labels: their values, the range of scores, and independence of labels; opening of masks."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from scipy.stats import norm
from skimage.filters import threshold_otsu
from torch import Tensor

from anomalib_defect_plugins.core.operating_points import normal_tolerance_limit
from anomalib_defect_plugins.post_processing import (
    OpeningPostProcessor,
    OtsuPostProcessor,
    ReferencePostProcessor,
    SigmaPostProcessor,
    unseen_views,
)
from anomalib_defect_plugins.post_processing.label_free import CONFIDENCE, INDEPENDENT_VIEWS

POOLED = [OtsuPostProcessor, SigmaPostProcessor]

TOLERANCE = 1e-3
"""Part of [0, 1] at either end for values outside the validated range."""


@pytest.fixture
def maps() -> Tensor:
    """Anomaly maps of seven images, shape (7, 1, 20, 30), with a bright blob in each of the last four."""
    maps = torch.randn(7, 1, 20, 30, generator=torch.Generator().manual_seed(0))
    maps[3:, :, 5:15, 10:20] += 8
    return maps


def validate(post: PostProcessor, maps: Tensor, labels: Tensor | None = None, masks: Tensor | None = None) -> None:
    """Run the validation hooks, in batches of three."""
    for start in range(0, len(maps), 3):
        rows = slice(start, start + 3)
        batch = ImageBatch(
            image=torch.rand(len(maps[rows]), 3, *maps.shape[-2:]),
            anomaly_map=maps[rows],
            pred_score=maps[rows].amax((1, 2, 3)),
            gt_label=None if labels is None else labels[rows],
            gt_mask=None if masks is None else masks[rows],
        )
        post.on_validation_batch_end(None, None, batch)
    post.on_validation_epoch_end(None, None)


def truth(maps: Tensor) -> tuple[Tensor, Tensor]:
    masks = (maps > 4).squeeze(1)
    return masks.flatten(1).any(1), masks


def test_otsus_threshold_is_that_of_all_pixels(maps: Tensor) -> None:
    post = OtsuPostProcessor()
    validate(post, maps)
    assert float(post.pixel_threshold) == pytest.approx(threshold_otsu(maps.numpy(), nbins=1024), abs=1e-5)
    assert 2 < float(post.pixel_threshold) < 6  # between texture at 0 and blobs at 8


def test_the_control_limit_is_a_number_of_deviations_above_the_mean_of_all_pixels(maps: Tensor) -> None:
    post = SigmaPostProcessor(sigmas=1.5)
    validate(post, maps)
    assert float(post.pixel_threshold) == pytest.approx(maps.numpy().mean() + 1.5 * maps.numpy().std(), abs=1e-4)


def test_the_control_limit_is_exact_for_maps_far_from_zero() -> None:
    values = np.tile(np.array([1e4, 1e4 + 1], dtype=np.float32), 200_000)
    assert SigmaPostProcessor(sigmas=2).choose_threshold(values) == pytest.approx(1e4 + 0.5 + 2 * 0.5, abs=1e-6)


@pytest.mark.parametrize("cls", POOLED)
def test_the_threshold_of_pixels_applies_to_images_too(maps: Tensor, cls: type[PostProcessor]) -> None:
    post = cls()
    validate(post, maps)
    assert torch.equal(post.image_threshold, post.pixel_threshold)


@pytest.mark.parametrize("cls", [*POOLED, ReferencePostProcessor])
def test_labels_and_masks_have_no_effect(maps: Tensor, cls: type[PostProcessor]) -> None:
    labels, masks = truth(maps)
    states = []
    for truth_of_batch in ((), (labels, masks), (labels.flip(0), masks.flip(0)), (~labels, ~masks)):
        post = cls()
        if cls is ReferencePostProcessor:
            post.set_reference(maps[:1], maps[:1].amax((1, 2, 3)))
        validate(post, maps, *truth_of_batch)
        states.append({name: float(value) for name, value in post.state_dict().items() if value.ndim == 0})
    assert all(state == pytest.approx(states[0], nan_ok=True) for state in states)
    assert states[0]


@pytest.mark.parametrize("cls", POOLED)
def test_a_second_validation_discards_the_first(maps: Tensor, cls: type[PostProcessor]) -> None:
    post, fresh = cls(), cls()
    validate(post, maps)
    validate(post, maps[:3] * 2)
    validate(fresh, maps[:3] * 2)
    assert torch.equal(post.pixel_threshold, fresh.pixel_threshold)


@pytest.mark.parametrize("cls", POOLED)
def test_maps_in_half_precision_are_pooled_too(maps: Tensor, cls: type[PostProcessor]) -> None:
    post, half = cls(), cls()
    validate(post, maps)
    validate(half, maps.half())
    assert torch.allclose(half.pixel_threshold, post.pixel_threshold, atol=0.05)


@pytest.mark.parametrize("cls", POOLED)
def test_constant_maps_have_a_finite_threshold(cls: type[PostProcessor]) -> None:
    post = cls()
    validate(post, torch.full((4, 1, 8, 8), 0.25))
    assert float(post.pixel_threshold) == pytest.approx(0.25)


@pytest.mark.parametrize("cls", POOLED)
def test_validation_sets_the_range_and_the_threshold_becomes_a_half(maps: Tensor, cls: type[PostProcessor]) -> None:
    post = cls()
    validate(post, maps)
    assert (post.pixel_min, post.pixel_max) == (maps.min(), maps.max())
    scores = maps.amax((1, 2, 3))
    assert (post.image_min, post.image_max) == (scores.min(), scores.max())
    result = post(InferenceBatch(anomaly_map=maps, pred_score=scores))
    assert torch.equal(result.pred_mask, maps >= post.pixel_threshold)
    assert torch.equal(result.pred_label, scores >= post.pixel_threshold)
    assert torch.equal(result.anomaly_map >= 0.5, result.pred_mask)


@pytest.mark.parametrize("cls", POOLED)
def test_a_checkpoint_restores_the_threshold(maps: Tensor, cls: type[PostProcessor]) -> None:
    post, restored = cls(), cls()
    validate(post, maps)
    restored.load_state_dict(post.state_dict())
    restored.load_checkpoint_config(post.checkpoint_config())
    result, expected = (each(InferenceBatch(anomaly_map=maps)) for each in (restored, post))
    assert torch.equal(result.pred_mask, expected.pred_mask)


@pytest.mark.parametrize(
    ("percentile", "expected"),
    [(99.8, 998.0), (50, 500.0), (100, 1000.0), (0, 1.0)],  # of the values 1 to 1000
)
def test_the_pixel_threshold_is_a_percentile_of_normal_pixels(percentile: float, expected: float) -> None:
    values = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).float() + 1
    post = ReferencePostProcessor(percentile)
    post.set_reference(values.reshape(2, 1, 20, 25), torch.tensor([3.0, 7.0]))
    # Just above, so that the normal pixel and image of that value stay normal.
    assert float(post.pixel_threshold) == np.nextafter(np.float32(expected), np.float32(np.inf))
    assert float(post.image_threshold) == pytest.approx(7 + 1e-3 * (7 - 1))


@pytest.fixture
def reference() -> ReferencePostProcessor:
    """Post-processor with normal pixels of 2 to 6 in steps of 0.01, of which 75 % are at most 5, and a score of 6."""
    post = ReferencePostProcessor(percentile=75)
    post.set_reference(torch.linspace(2, 6, 401).reshape(1, 1, 1, 401), torch.tensor([6.0]))
    return post


def test_without_validation_the_threshold_is_a_half_and_the_lowest_normal_pixel_zero(
    reference: ReferencePostProcessor,
) -> None:
    # Pixels are scaled by 5 - 2 on both sides of the threshold, scores by 6 - 2.
    values = torch.tensor([1.0, 2.0, 3.5, 5.0, 6.5, 8.0, 9.0]).reshape(1, 1, 1, 7)
    result = reference(InferenceBatch(anomaly_map=values, pred_score=torch.tensor([6.0])))
    assert torch.allclose(result.anomaly_map.flatten(), torch.tensor([0, 0, 0.25, 0.5, 0.75, 1, 1]), atol=TOLERANCE)
    assert result.pred_mask.flatten().tolist() == [False] * 4 + [True] * 3
    assert float(result.pred_score) == pytest.approx(0.5, abs=TOLERANCE)
    assert float(result.pred_score) < 0.5
    scores = torch.tensor([1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0])
    result = reference(InferenceBatch(anomaly_map=values.expand(7, 1, 1, 7), pred_score=scores))
    assert torch.allclose(result.pred_score, torch.tensor([0, 0, 0.25, 0.5, 0.75, 1, 1]), atol=2 * TOLERANCE)
    assert (result.pred_score.diff() > 0).all()
    assert result.pred_label.tolist() == [False] * 4 + [True] * 3


def test_an_epoch_without_validation_images_changes_nothing(reference: ReferencePostProcessor) -> None:
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    reference.on_validation_epoch_end(None, None)
    assert all(torch.equal(before[name], value) for name, value in reference.state_dict().items())


def test_validation_changes_the_range_and_not_the_thresholds(reference: ReferencePostProcessor, maps: Tensor) -> None:
    thresholds = (reference.pixel_threshold.clone(), reference.image_threshold.clone())
    validate(reference, maps, *truth(maps))
    assert (reference.pixel_threshold, reference.image_threshold) == thresholds
    assert (reference.pixel_min, reference.pixel_max) == (maps.min(), maps.max())


def test_one_uniform_normal_image_still_separates_higher_from_lower() -> None:
    post = ReferencePostProcessor()
    post.set_reference(torch.full((1, 1, 4, 4), 0.3), torch.tensor([0.3]))
    result = post(InferenceBatch(anomaly_map=torch.tensor([0.1, 0.3, 0.5]).reshape(1, 1, 1, 3)))
    # Without a range, the threshold of 0.3 is its unit: 0.2 is two thirds of it.
    assert result.anomaly_map.flatten().tolist() == pytest.approx([1 / 6, 0.5, 5 / 6], abs=TOLERANCE)
    assert result.pred_mask.flatten().tolist() == [False, False, True]


def test_opening_removes_specks_from_masks_and_keeps_regions_that_contain_the_square() -> None:
    anomaly_map = torch.zeros(2, 16, 16)
    anomaly_map[0, 2:5, 2:6] = 0.9  # contains a square of 3
    anomaly_map[0, 10, 3] = anomaly_map[1, 4:6, 4:6] = 0.9  # does not
    batch = ImageBatch(image=torch.zeros(2, 3, 16, 16), anomaly_map=anomaly_map, pred_score=torch.ones(2))
    post_processor = OpeningPostProcessor(3)
    post_processor._pixel_threshold.fill_(0.5)
    post_processor.threshold_batch(batch)
    expected = torch.zeros(2, 16, 16, dtype=torch.bool)
    expected[0, 2:5, 2:6] = True
    assert torch.equal(batch.pred_mask, expected)


def test_opening_is_restored_from_a_checkpoint() -> None:
    restored = OpeningPostProcessor()
    restored.load_checkpoint_config(OpeningPostProcessor(7).checkpoint_config())
    assert restored.size == 7


def test_the_image_threshold_is_the_tolerance_limit_of_unseen_views() -> None:
    post = ReferencePostProcessor()
    unseen = torch.tensor([1.0, 1.2, 1.4, 1.6])
    post.set_reference(torch.rand(1, 1, 8, 8), torch.tensor([0.9]), unseen)
    expected = normal_tolerance_limit(unseen.double().numpy(), 0.05, CONFIDENCE, INDEPENDENT_VIEWS)
    assert float(post.image_threshold) == pytest.approx(expected)
    assert expected > 1.3 + 7.656 * float(unseen.std())  # the factor of three values at 95 % (ISO 16269-6, Table D.4)


@pytest.mark.parametrize("percentile", [5.0, 100.0])
def test_with_a_common_limit_no_pixel_of_a_normal_image_is_defective(percentile: float) -> None:
    post = ReferencePostProcessor(percentile)
    unseen = torch.tensor([1.0, 1.2, 1.4, 1.6])
    pixels = torch.linspace(0, 9, 64).reshape(1, 1, 8, 8)
    post.set_reference(pixels, torch.tensor([0.9]), unseen, common_limit=True)
    highest = pixels.max() if percentile == 100.0 else post.image_threshold
    assert float(post.pixel_threshold) == pytest.approx(float(highest))
    # A map below the image threshold in all pixels, and so in their mean, is normal in both ways.
    below = torch.full((1, 1, 8, 8), float(post.image_threshold) - 0.01)
    result = post(InferenceBatch(anomaly_map=below, pred_score=below.mean((1, 2, 3))))
    assert not result.pred_label.any()
    assert not result.pred_mask.any()


def test_a_good_image_like_the_views_is_rarely_flagged() -> None:
    scores = 1 + 0.2 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    kept = 0
    for unseen in scores:
        post = ReferencePostProcessor(false_alarm_rate=0.05)
        post.set_reference(torch.rand(1, 1, 4, 4), unseen[:1], unseen)
        kept += norm.sf(float(post.image_threshold), 1, 0.2) <= 0.05
    assert kept >= 960  # 97 %, less twice the standard deviation of 1,000 draws


def test_views_are_unseen_and_normal() -> None:
    image = torch.rand(1, 3, 16, 16)
    views = unseen_views(image)
    assert views.shape == (9, 3, 16, 16)
    assert not any(torch.equal(view, image[0]) for view in views)
    assert torch.allclose(views[4:].flatten(1).sort().values, image.flatten().sort().values)
    assert unseen_views(torch.rand(1, 3, 16, 24)).shape == (7, 3, 16, 24)


def test_otsu_and_sigma_say_when_they_do_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    normal = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    OtsuPostProcessor().choose_threshold(normal)
    assert "otsu does not fit: the anomaly maps are not of two kinds (separation 0.64" in caplog.text
    caplog.clear()
    SigmaPostProcessor().choose_threshold(normal)
    OtsuPostProcessor().choose_threshold(np.concatenate([normal, normal + 8]))
    assert not caplog.text
    SigmaPostProcessor(sigmas=1).choose_threshold(np.concatenate([normal, normal[:5000] + 8]))
    assert "sigma does not fit: 20.0 % of all pixels are above 1 standard deviations" in caplog.text
