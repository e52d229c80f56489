"""The evaluator of all models: the ranking is that of the raw scores, and F1 needs thresholds."""

from collections.abc import Iterable
from typing import Any, cast

from anomalib.metrics import Evaluator, F1Score
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torchmetrics import Metric

from anomalib_defect_plugins.metrics.curves import AUPR, AUROC

RANKINGS = (AUROC, AUPR)
"""Metrics that are updated with raw scores: rounding during normalisation may make scores equal."""


class DefectEvaluator(Evaluator):
    """anomalib's evaluator, with areas under curves computed from the scores before post-processing.

    ``ranking`` has to come before the post-processor among the callbacks.

    Args:
        **kwargs: Arguments of anomalib's evaluator.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ranking = RawRanking(self)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: object
    ) -> None:
        """Update all other metrics."""
        del trainer, pl_module, outputs
        for metric in cast(Iterable[Metric], self.test_metrics):
            if not isinstance(metric, RANKINGS):
                metric.update(batch)


class RawRanking(Callback):
    """Updates the areas under curves of an evaluator before the post-processor runs.

    Args:
        evaluator: The evaluator.
    """

    def __init__(self, evaluator: DefectEvaluator) -> None:
        self.evaluator = evaluator

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: object
    ) -> None:
        """Update the areas under curves."""
        del trainer, pl_module, outputs
        for metric in self.evaluator.test_metrics:
            if isinstance(metric, RANKINGS):
                metric.update(batch)


def default_evaluator() -> DefectEvaluator:
    """Return an evaluator with the metrics of anomalib's default; those without values are left out."""
    return DefectEvaluator(
        test_metrics=[
            AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
            F1Score(fields=["pred_label", "gt_label"], prefix="image_", strict=False),
            AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
            F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        ]
    )
