"""Pixel metrics: hand calculations, scikit-learn's definitions, and use in anomalib."""

import math

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jsonargparse import ArgumentParser
from sklearn.metrics import accuracy_score, jaccard_score

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.metrics import DefectIoU, MeanIoU, PixelAccuracy

ALL = (DefectIoU, MeanIoU, PixelAccuracy)
# TP 2, FP 1, FN 3, TN 10: defect 2/6, background 10/14.
PREDICTED = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
TRUE = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def batch(predicted: torch.Tensor, true: torch.Tensor) -> ImageBatch:
    return ImageBatch(image=torch.zeros(len(true), 3, *true.shape[-2:]), pred_mask=predicted, gt_mask=true)


def value(metric: type, predicted: torch.Tensor, true: torch.Tensor) -> float:
    instance = metric()
    instance.update(batch(predicted, true))
    return float(instance.compute())


@pytest.mark.parametrize(
    ("metric", "expected"),
    [(DefectIoU, 2 / 6), (MeanIoU, (2 / 6 + 10 / 14) / 2), (PixelAccuracy, 12 / 16)],
)
def test_the_value_is_that_of_a_hand_calculation(metric: type, expected: float) -> None:
    assert value(metric, PREDICTED[None], TRUE[None]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        pytest.param(0, 0, (1, 1, 1), id="no defect, none predicted"),
        pytest.param(1, 1, (1, 1, 1), id="all defect, all predicted"),
        pytest.param(1, 0, (0, 0, 0), id="no defect, all predicted"),
        pytest.param(0, 1, (0, 0, 0), id="all defect, none predicted"),
    ],
)
def test_a_class_without_pixels_has_an_iou_of_one(predicted: int, true: int, expected: tuple[int, ...]) -> None:
    masks = torch.full((2, 3, 4), predicted), torch.full((2, 3, 4), true)
    assert tuple(value(metric, *masks) for metric in ALL) == expected


def test_pixels_are_pooled_and_not_averaged_over_images() -> None:
    predicted, true = torch.zeros(2, 2, 4), torch.zeros(2, 2, 4)
    true[0], predicted[0] = 1, 1  # 8 of 8 defect pixels detected
    true[1, 0, 0] = 1  # 0 of 1
    assert value(DefectIoU, predicted, true) == pytest.approx(8 / 9)  # the mean over images would be 1 / 2


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_the_value_does_not_depend_on_the_dtype_or_a_channel_axis(metric: type, dtype: torch.dtype) -> None:
    instance, plain = metric(fields=["pred", "gt"]), value(metric, PREDICTED[None], TRUE[None])
    for predicted, true in ((PREDICTED[None], TRUE[None, None]), (PREDICTED[None, None], TRUE[None])):
        instance.reset()
        instance.update(Fields(predicted.to(dtype), true.to(dtype)))
        assert instance.compute().item() == pytest.approx(plain)


def test_scores_are_binarised_at_the_threshold() -> None:
    scores = torch.tensor([[[0.2, 0.3, 0.6, 0.9]]])
    true = torch.tensor([[[0, 1, 1, 1]]])
    for threshold, expected in ((0.5, 2 / 3), (0.25, 1.0), (0.0, 3 / 4)):
        instance = DefectIoU(fields=["pred", "gt"], threshold=threshold)
        instance.update(Fields(scores, true))
        assert instance.compute().item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "true", "words"),
    [
        pytest.param(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5), ["(1, 4, 4)", "(1, 4, 5)", "resize"], id="shape"),
        pytest.param(torch.zeros(1, 4, 4), torch.full((1, 4, 4), 255), ["255", "true masks"], id="mask of 255"),
        pytest.param(torch.full((1, 4, 4), 7.5), torch.zeros(1, 4, 4), ["7.5", "Normalise"], id="raw scores"),
        pytest.param(torch.full((1, 4, 4), math.nan), torch.zeros(1, 4, 4), ["nan", "Normalise"], id="not a number"),
        pytest.param(torch.full((1, 4, 4), 2), torch.zeros(1, 4, 4), ["int64", "2"], id="class numbers"),
    ],
)
def test_invalid_values_and_shapes_are_refused(predicted: torch.Tensor, true: torch.Tensor, words: list[str]) -> None:
    with pytest.raises(InvalidInputError) as error:
        DefectIoU(fields=["pred", "gt"]).update(Fields(predicted, true))
    assert all(word in str(error.value) for word in ["DefectIoU", *words])


def test_a_threshold_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"DefectIoU.*1\.5"):
        DefectIoU(threshold=1.5)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_the_value_without_pixels_is_nan(metric: type) -> None:
    assert math.isnan(metric().compute())


@pytest.mark.parametrize("metric", ALL)
def test_batches_without_masks_are_skipped_when_not_strict(metric: type) -> None:
    instance = metric(strict=False)
    instance.update(batch(PREDICTED[None], TRUE[None]))
    before = instance.compute()
    instance.update(ImageBatch(image=torch.zeros(1, 3, 4, 4), pred_mask=torch.ones(1, 4, 4)))
    assert instance.compute() == before


masks = arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_values_equal_those_of_scikit_learn(data: st.DataObject) -> None:
    true = data.draw(masks)
    predicted = data.draw(arrays(bool, true.shape))
    flat = true.ravel(), predicted.ravel()
    # scikit-learn's macro mean includes a class without pixels as `zero_division`, too.
    expected = (
        jaccard_score(*flat, zero_division=1.0),
        jaccard_score(*flat, labels=[False, True], average="macro", zero_division=1.0),
        accuracy_score(*flat),
    )
    measured = [value(metric, torch.tensor(predicted), torch.tensor(true)) for metric in ALL]
    assert measured == pytest.approx(expected, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_value_does_not_depend_on_how_images_are_batched(data: st.DataObject) -> None:
    drawn = data.draw(masks)
    true, predicted = torch.tensor(drawn), torch.tensor(data.draw(arrays(bool, drawn.shape)))
    cut = data.draw(st.integers(0, len(true)))
    order = torch.tensor(data.draw(st.permutations(range(len(true)))))
    for metric in ALL:
        instance = metric()
        for indices in (order[:cut], order[cut:]):
            if len(indices):
                instance.update(batch(predicted[indices], true[indices]))
        assert instance.compute().item() == value(metric, predicted, true)


def test_counts_beyond_the_precision_of_floats_are_exact() -> None:
    metric = PixelAccuracy()
    metric.update(batch(PREDICTED[None], TRUE[None]))
    metric.counts = torch.tensor([[2**40, 0], [2**20, 0]])
    assert metric.compute().item() == pytest.approx(1 - 2**-20, rel=1e-7)


@pytest.mark.parametrize("metric", ALL)
def test_every_process_of_a_distributed_run_computes_the_value_of_all_images(metric: type) -> None:
    other = metric()
    other.update(batch(1 - TRUE[None], TRUE[None]))
    instance = metric(
        dist_sync_fn=lambda counts, group: [counts, other.counts],
        distributed_available_fn=lambda: True,
    )
    instance.update(batch(PREDICTED[None], TRUE[None]))
    expected = value(metric, torch.stack([PREDICTED, 1 - TRUE]), torch.stack([TRUE, TRUE]))
    assert instance.compute().item() == pytest.approx(expected)
    assert expected != value(metric, PREDICTED[None], TRUE[None])


@pytest.mark.parametrize("metric", ALL)
def test_reset_discards_all_pixels(metric: type) -> None:
    instance = metric()
    instance.update(batch(PREDICTED[None], TRUE[None]))
    instance.reset()
    instance.update(batch(TRUE[None], TRUE[None]))
    assert instance.compute() == 1


def test_an_evaluator_is_configured_with_them() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(Evaluator, "evaluator")
    module = "anomalib_defect_plugins.metrics"
    config = [
        {"class_path": f"{module}.MeanIoU", "init_args": {"prefix": "pixel_", "strict": False}},
        {"class_path": f"{module}.DefectIoU", "init_args": {"fields": ["anomaly_map", "gt_mask"], "threshold": 0.3}},
    ]
    parsed = parser.parse_object({"evaluator": {"test_metrics": config}})
    mean, defect = parser.instantiate_classes(parsed).evaluator.test_metrics
    assert (mean.name, list(mean.fields), mean.strict) == ("pixel_MeanIoU", ["pred_mask", "gt_mask"], False)
    assert (defect.name, list(defect.fields), defect.threshold) == ("DefectIoU", ["anomaly_map", "gt_mask"], 0.3)


class Fields:
    """Batch that keeps masks unchanged, unlike ``ImageBatch``, which converts them to bool and drops the channel."""

    def __init__(self, pred: torch.Tensor, gt: torch.Tensor) -> None:
        self.pred, self.gt = pred, gt
