"""Areas under curves of raw scores, and an evaluator that ranks them."""

import math
from typing import Any

import anomalib.metrics
import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_defect_plugins.metrics import AUPR, AUROC
from anomalib_defect_plugins.metrics.evaluator import DefectEvaluator, default_evaluator
from anomalib_defect_plugins.post_processing import DefectPostProcessor

SCORES = np.array([900.0, 300.0, 500.0, 200.0, 400.0, 700.0, 800.0, 800.0], np.float32)
LABELS = np.array([1, 0, 1, 0, 1, 0, 1, 0])


def batch(scores: np.ndarray) -> ImageBatch:
    """Return a batch with these scores, and maps and masks that contain each of them in half of the pixels."""
    maps = torch.from_numpy(scores).reshape(-1, 1, 1).repeat(1, 2, 2)
    maps[:, 0] -= maps.abs().max()
    masks = torch.zeros(len(scores), 2, 2, dtype=torch.bool)
    masks[:, 1] = torch.from_numpy(LABELS).reshape(-1, 1).bool()
    image = torch.zeros(len(scores), 3, 2, 2)
    labels = torch.from_numpy(LABELS)
    return ImageBatch(
        image=image, pred_score=torch.from_numpy(scores), anomaly_map=maps, gt_label=labels, gt_mask=masks
    )


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1, -500), (1e-20, 0), (1e-3, 0), (1e6, 1e6)])
@pytest.mark.parametrize(
    ("cls", "expected"), [(AUROC, roc_auc_score), (AUPR, average_precision_score)], ids=["auroc", "aupr"]
)
def test_areas_are_those_of_the_raw_scores(cls: Any, expected: Any, scale: float, shift: float) -> None:
    data = batch((SCORES + shift) * np.float32(scale))
    image, pixel = cls(fields=["pred_score", "gt_label"], prefix="image_"), cls(fields=["anomaly_map", "gt_mask"])
    for metric, scores, labels in (
        (image, data.pred_score, data.gt_label),
        (pixel, data.anomaly_map.flatten(), data.gt_mask.flatten()),
    ):
        metric.update(data)
        assert metric.compute().item() == pytest.approx(expected(labels.numpy(), scores.numpy()), abs=1e-6)
    assert image.name == f"image_{cls.__name__}"


@pytest.mark.parametrize("thresholds", [None, 5])
@pytest.mark.parametrize(
    ("cls", "label", "expected"),
    [(AUROC, 0, math.nan), (AUROC, 1, math.nan), (AUPR, 0, math.nan), (AUPR, 1, 1.0)],
    ids=["auroc, normal", "auroc, defective", "aupr, normal", "aupr, defective"],
)
@pytest.mark.filterwarnings("ignore:No negative samples")
def test_an_area_that_is_not_defined_is_nan(cls: Any, label: int, expected: float, thresholds: int | None) -> None:
    metric = cls(fields=["pred_score", "gt_label"], prefix="image_", thresholds=thresholds)
    data = batch(SCORES / 1000)
    metric.update(data.update(gt_label=torch.full((8,), label)))
    if math.isnan(expected):
        word = ["normal", "defective"][label]
        match = f"^image_{cls.__name__} is not defined, since everything that was tested is labelled {word}$"
        with pytest.warns(UserWarning, match=match):
            assert math.isnan(metric.compute())
    else:
        assert metric.compute() == expected


def test_anomalibs_metric_makes_large_scores_equal() -> None:
    metric = anomalib.metrics.AUROC(fields=["pred_score", "gt_label"])
    metric.update(batch(SCORES))
    assert metric.compute().item() == 0.5


def test_the_default_metrics_are_anomalibs() -> None:
    names = ["image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"]
    assert [metric.name for metric in default_evaluator().test_metrics] == names


@pytest.mark.parametrize("has_threshold", [True, False])
def test_areas_are_updated_before_the_post_processor_and_labels_after_it(has_threshold: bool) -> None:
    # The scores above the threshold of 1e-20 are equal after normalisation to [0, 1].
    scores = SCORES / 1e3 * np.float32(1e-12)
    evaluator, post_processor = default_evaluator(), DefectPostProcessor()
    if has_threshold:
        for name, value in (("_image_threshold", 3.5e-13), ("image_min", 0.0), ("image_max", 1.0)):
            getattr(post_processor, name).fill_(value)
    data = batch(scores)
    for callback in (evaluator.ranking, post_processor, evaluator):
        callback.on_test_batch_end(None, None, data, data, 0)
    results = {metric.name: metric.compute() for metric in evaluator.test_metrics}
    assert results["image_AUROC"] == pytest.approx(roc_auc_score(LABELS, scores))
    if has_threshold:
        assert len(data.pred_score.unique()) < len(np.unique(scores))
        assert results["image_F1Score"] == pytest.approx(2 * 4 / (2 * 4 + 2))  # two false alarms
    else:
        assert results["image_F1Score"] is None  # Lightning does not log it


def test_an_evaluator_with_other_metrics_updates_each_once() -> None:
    metrics = [AUROC(fields=["pred_score", "gt_label"]), anomalib.metrics.AUPRO(fields=["anomaly_map", "gt_mask"])]
    evaluator = DefectEvaluator(test_metrics=metrics)
    data = batch(SCORES)
    for callback in (evaluator.ranking, evaluator):
        callback.on_test_batch_end(None, None, data, data, 0)
    assert [metric.update_count for metric in metrics] == [1, 1]
