"""Verdicts at the threshold that was chosen: any scale of scores, plateaus, sensitivities, and no threshold."""

import logging
from typing import Any

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from torch import Tensor
from torchmetrics.functional.classification import binary_f1_score

from anomalib_defect_plugins.models.isugan.post_processing import ImageOtsuPostProcessor
from anomalib_defect_plugins.post_processing import (
    DefectPostProcessor,
    FixedPostProcessor,
    OpeningPostProcessor,
    UnitPostProcessor,
)
from anomalib_defect_plugins.post_processing.base import AdaptiveThreshold

SCALES = [1e-20, 1e-12, 1e-6, 0.1, 1e3, 1e6]

UNIT_SCALES = [scale for scale in SCALES if scale < 1]

MEMBERS = [
    *((DefectPostProcessor, scale) for scale in SCALES),
    *((cls, scale) for cls in (UnitPostProcessor, ImageOtsuPostProcessor) for scale in UNIT_SCALES),
]

NAN = float("nan")

# Normal and defective scores; the highest F1 score is reached from 3 on, with one false alarm.
SCORES = torch.tensor([1.0, 2.0, 2.5, 3.5, 3.0, 4.0, 6.0, 9.0])
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def validated(cls: type[DefectPostProcessor], scores: Tensor, labels: Tensor, maps: Tensor | None = None) -> Any:
    """Return a post-processor that was validated with scores and labels, and maps whose masks are their pixels > 2."""
    post = cls()
    count = len(scores)
    maps = scores.reshape(count, 1, 1, 1).expand(count, 1, 2, 2) if maps is None else maps
    masks = labels.reshape(count, 1, 1).expand(count, *maps.shape[-2:]).bool()
    batch = ImageBatch(
        image=torch.zeros(count, 3, *maps.shape[-2:]),
        pred_score=scores,
        anomaly_map=maps,
        gt_label=labels,
        gt_mask=masks,
    )
    post.on_validation_batch_end(None, None, batch)
    post.on_validation_epoch_end(None, None)
    return post


def verdicts(post: DefectPostProcessor, scores: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels and masks, which have to be the same in a batch and in a graph."""
    graph = post(InferenceBatch(pred_score=scores, anomaly_map=maps))
    batch = ImageBatch(image=torch.zeros(len(maps), 3, *maps.shape[-2:]), pred_score=scores, anomaly_map=maps)
    post.post_process_batch(batch)
    assert torch.equal(batch.pred_label, graph.pred_label)
    assert torch.equal(batch.pred_mask.reshape(graph.pred_mask.shape), graph.pred_mask)
    assert torch.equal(batch.pred_score, graph.pred_score)
    return graph.pred_label, graph.pred_mask


@pytest.mark.parametrize(("cls", "scale"), MEMBERS)
def test_verdicts_have_the_f1_score_of_the_search(cls: type[DefectPostProcessor], scale: float) -> None:
    scores = SCORES * scale
    post = validated(cls, scores, LABELS)
    labels, _ = verdicts(post, scores, scores.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    best = max(binary_f1_score((scores >= threshold).int(), LABELS) for threshold in scores)
    assert float(post.image_threshold) == pytest.approx(2.75 * scale)  # between 2.5 and 3, for which F1 is the same
    assert labels.tolist() == [False, False, False, True, True, True, True, True]
    assert binary_f1_score(labels.int(), LABELS) == best


@pytest.mark.parametrize(("cls", "scale"), MEMBERS[: len(SCALES) + len(UNIT_SCALES)])
def test_a_plateau_at_the_threshold_is_in_the_mask(cls: type[DefectPostProcessor], scale: float) -> None:
    # A map that is saturated in the whole defect, as those of median filters and sigmoids are.
    maps = torch.full((2, 1, 8, 8), 0.1)
    maps[1, 0, 2:6, 2:6] = 0.9
    masks = maps[:, 0] > 0.5
    post = cls()
    batch = ImageBatch(
        image=torch.zeros(2, 3, 8, 8), anomaly_map=maps * scale, pred_score=maps.amax((1, 2, 3)) * scale, gt_mask=masks
    )
    batch.gt_label = torch.tensor([0, 1])
    post.on_validation_batch_end(None, None, batch)
    post.on_validation_epoch_end(None, None)
    for _ in range(2):
        labels, mask = verdicts(post, batch.pred_score, maps * scale)
        assert labels.tolist() == [False, True]
        assert torch.equal(mask[:, 0], masks)
        # Then, as in older checkpoints, the plateau itself is the threshold.
        post._image_threshold.copy_(batch.pred_score[1])
        post._pixel_threshold.copy_(batch.pred_score[1])
    # anomalib leaves out the plateau, and the image.
    stock = PostProcessor()
    stock.load_state_dict(post.state_dict())
    assert not stock(InferenceBatch(pred_score=batch.pred_score, anomaly_map=maps * scale)).pred_label.any()


@pytest.mark.parametrize(("cls", "scale"), MEMBERS)
def test_normal_validation_images_are_normal_without_defective_ones(
    cls: type[DefectPostProcessor], scale: float
) -> None:
    scores = SCORES[:4] * scale
    post = validated(cls, scores, torch.zeros(4, dtype=torch.int64))
    labels, masks = verdicts(post, scores, scores.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    assert not labels.any()
    assert not masks.any()
    assert scores[3] < post.image_threshold <= 1.003 * scores[3]
    higher = 1.003 * scores[3:]
    assert verdicts(post, higher, higher.reshape(1, 1, 1, 1).expand(1, 1, 2, 2))[0].all()


@pytest.mark.parametrize(("cls", "scale"), MEMBERS)
@pytest.mark.parametrize("defective", [True, False])
def test_rounding_in_another_engine_does_not_change_the_verdict_of_a_validation_image(
    cls: type[DefectPostProcessor], scale: float, defective: bool
) -> None:
    scores, labels = (SCORES * scale, LABELS) if defective else (SCORES[:4] * scale, LABELS[:4])
    post = validated(cls, scores, labels)
    expected, _ = verdicts(post, scores, scores.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    for factor in (1 - 1e-5, 1 + 1e-5):
        found, _ = verdicts(post, scores * factor, (scores * factor).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("values", "targets", "expected"),
    [
        ([1.0, 1.0, 1.0], [0, 1, 1], 1.0),  # no lower score
        ([1.0, 1.0000001], [0, 1], 1.0000001),  # adjacent numbers
        ([2.0, 3.0], [1, 1], 2.0),
        ([0.0, 1e-45], [0, 1], 1e-45),
        ([-3.0, -1.0], [0, 1], -2.0),
        ([5.0, 5.0], [0, 0], 5.0000005),  # no range
    ],
)
def test_thresholds_of_equal_and_adjacent_scores(values: list[float], targets: list[int], expected: float) -> None:
    metric = AdaptiveThreshold(fields=["pred_score", "gt_label"])
    metric.update(ImageBatch(image=torch.zeros(len(values), 3, 1, 1), pred_score=torch.tensor(values),
                             gt_label=torch.tensor(targets)))  # fmt: skip
    assert metric.compute() == torch.tensor(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("defective", [True, False])
def test_thresholds_of_other_precisions_are_exact(dtype: torch.dtype, defective: bool) -> None:
    scores, labels = (SCORES.to(dtype), LABELS) if defective else (SCORES[:4].to(dtype), LABELS[:4])
    post = validated(DefectPostProcessor, scores, labels)
    labels = post(InferenceBatch(pred_score=scores, anomaly_map=scores.reshape(-1, 1, 1, 1))).pred_label
    assert torch.equal(labels, scores >= 3 if defective else torch.zeros(4, dtype=torch.bool))


def test_the_weakest_of_far_defects_is_found() -> None:
    # Saturated sigmoids, as of a OneStage.
    normal, defective = [7.6e-21, 8.1e-21, 7.7e-21], [2e-2, 7e-6, 4.9e-13, 8.1e-10, 1e-6]
    scores = torch.tensor(normal + defective)
    post = validated(UnitPostProcessor, scores, torch.tensor([0] * 3 + [1] * 5))
    labels, _ = verdicts(post, scores, scores.reshape(-1, 1, 1, 1))
    assert labels.tolist() == [False] * 3 + [True] * 5


@pytest.mark.parametrize("threshold", [1e-9, 0.3, 1.0])
def test_fixed_thresholds_are_reached_by_scores_equal_to_them(threshold: float) -> None:
    post = FixedPostProcessor(threshold, threshold)
    scores = torch.tensor([threshold, threshold]) * torch.tensor([1.0, 1 - 1e-6])
    labels, _ = verdicts(post, scores, scores.reshape(-1, 1, 1, 1))
    assert labels.tolist() == [True, False]


@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize(
    # Of the scores 0 to 10 with a threshold of 4: 0 to 4 become 0 to 0.5, 4 to 10 become 0.5 to 1.
    ("sensitivity", "lowest"),
    [(0.5, 4), (0.76, 2), (0.24, 8), (0.49, 5)],
)
def test_sensitivity_moves_the_normalised_threshold(sensitivity: float, lowest: int, normalizes: bool) -> None:
    post = DefectPostProcessor(
        image_sensitivity=sensitivity, pixel_sensitivity=sensitivity, enable_normalization=normalizes
    )
    for name, value in (("min", 0), ("max", 10)):
        getattr(post, f"image_{name}").fill_(value)
        getattr(post, f"pixel_{name}").fill_(value)
    post._image_threshold.fill_(4)
    scores = torch.arange(11.0)
    result = post(InferenceBatch(pred_score=scores, anomaly_map=scores.reshape(-1, 1, 1, 1)))
    assert result.pred_label.tolist() == [score >= lowest for score in range(11)]
    assert torch.equal(result.pred_mask.flatten(), result.pred_label)
    assert torch.equal(result.pred_score, scores) != normalizes


def test_the_threshold_is_applied_where_the_range_is_unknown() -> None:
    post = DefectPostProcessor(image_sensitivity=0.9, enable_normalization=False)
    post._image_threshold.fill_(4)
    assert post(InferenceBatch(pred_score=torch.tensor([3.9, 4.0]))).pred_label.tolist() == [False, True]


@pytest.mark.parametrize("cls", [DefectPostProcessor, UnitPostProcessor, OpeningPostProcessor, ImageOtsuPostProcessor])
def test_without_thresholds_there_are_no_labels_and_masks_and_scores_are_raw(
    cls: type[DefectPostProcessor], caplog: pytest.LogCaptureFixture
) -> None:
    post, scores, maps = cls(), torch.tensor([0.2, 300.0]), torch.rand(2, 1, 4, 4) * 300
    result = post(InferenceBatch(pred_score=scores, anomaly_map=maps))
    assert result.pred_label is None
    assert result.pred_mask is None
    assert torch.equal(result.pred_score, scores)
    assert torch.equal(result.anomaly_map, maps)
    batch = ImageBatch(image=torch.zeros(2, 3, 4, 4), pred_score=scores, anomaly_map=maps)
    post.post_process_batch(batch)
    assert batch.pred_label is None
    assert batch.pred_mask is None
    with caplog.at_level(logging.WARNING):
        post.on_test_start(None, torch.nn.Identity())
    assert "Identity has no thresholds" in caplog.text


def test_settings_and_thresholds_are_stored_under_anomalibs_names() -> None:
    assert DefectPostProcessor().state_dict().keys() == PostProcessor().state_dict().keys()
    assert DefectPostProcessor().checkpoint_config() == PostProcessor().checkpoint_config()


def test_a_score_is_the_highest_pixel_if_there_is_none() -> None:
    post = FixedPostProcessor(0.5)
    assert post(InferenceBatch(anomaly_map=torch.tensor([[[[0.2, 0.5]]]]))).pred_label.tolist() == [[True]]
    with pytest.raises(ValueError, match="At least one"):
        post(InferenceBatch())
