"""The line of a test about misses and false alarms: numbers, intervals, images and the origin of the threshold."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anomalib.data.utils import ValSplitMode

from anomalib_defect_plugins.models.components.decision_log import DecisionLog, describe


def log_test(caplog: pytest.LogCaptureFixture, batches: list[Any], threshold: float = 0.5, **post: str) -> list[str]:
    model: Any = SimpleNamespace(name="OneStage", device=torch.device("cpu"))
    model.post_processor = SimpleNamespace(image_threshold=torch.tensor(threshold), **post)
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        strategy=SimpleNamespace(reduce=lambda counts, reduce_op: counts),
        datamodule=SimpleNamespace(val_split_mode=ValSplitMode.SAME_AS_TEST),
    )
    log = DecisionLog()
    log.on_test_start(trainer, model)
    for batch in batches:
        log.on_test_batch_end(trainer, model, batch, batch, 0)
    with caplog.at_level(logging.INFO):
        log.on_test_end(trainer, model)
    return [record.getMessage() for record in caplog.records]


def batch(labels: list[int], found: list[int]) -> SimpleNamespace:
    return SimpleNamespace(gt_label=torch.tensor(labels), pred_label=torch.tensor(found).bool())


def test_errors_are_counted_over_all_batches(caplog: pytest.LogCaptureFixture) -> None:
    batches = [batch([0, 0, 1], [0, 1, 1]), batch([1, 1, 0], [0, 1, 0])]
    (line,) = log_test(caplog, batches, threshold_origin="training images")
    # Clopper and Pearson: 1 of 3 is 0.84 to 90.6 %.
    assert line == (
        "Test of OneStage: 3 good and 3 defective images; misses 1 of 3 (0.84 to 90.6 %), false alarms 1 of 3 "
        "(0.84 to 90.6 %); threshold from training images"
    )


def test_a_threshold_that_saw_the_labels_is_marked_and_its_intervals_are_wider(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (line,) = log_test(caplog, [batch([0, 1, 1, 1], [0, 0, 1, 1])])
    assert line.endswith("threshold from test labels ‡")
    assert "misses 1 of 3 (0.84 to 90.6 %)" not in line


def test_nothing_is_logged_without_labels_or_threshold(caplog: pytest.LogCaptureFixture) -> None:
    unlabelled = SimpleNamespace(gt_label=None, pred_label=torch.ones(2))
    assert log_test(caplog, [unlabelled, SimpleNamespace()]) == []
    assert log_test(caplog, [batch([0, 1], [0, 1])], threshold=float("nan")) == []


def test_a_test_of_one_kind_of_images_has_one_rate() -> None:
    assert describe([[9, 1], [0, 0]], "given") == (
        "10 good and 0 defective images; false alarms 1 of 10 (0.253 to 44.5 %); threshold from given"
    )
