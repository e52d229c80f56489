"""Trainer callback that logs the errors of a test at the model's threshold, the images behind them and its origin."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from anomalib_defect_plugins.core.operating_points import clopper_pearson, widened
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.report.tested_images import SAW_TEST_LABELS, origin_of

logger = logging.getLogger(__name__)


class DecisionLog(Callback):
    """Logs misses and false alarms with 95 % intervals after a test. It must come after the post-processor."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        del trainer
        self._counts = torch.zeros(2, 2, dtype=torch.long, device=pl_module.device)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: object
    ) -> None:
        """Count the images of a batch by their label, and by that of the model."""
        del trainer, pl_module, batch
        labels, found = (getattr(outputs, name, None) for name in ("gt_label", "pred_label"))
        if isinstance(labels, Tensor) and isinstance(found, Tensor) and labels.numel() == found.numel():
            cells = 2 * labels.flatten().bool().long() + found.flatten().bool().long()
            self._counts += torch.bincount(cells, minlength=4).reshape(2, 2)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line."""
        counts = trainer.strategy.reduce(self._counts, reduce_op="sum").tolist()
        line = describe(counts, _origin(trainer, pl_module))
        if line and trainer.is_global_zero:
            logger.info("Test of %s: %s", pl_module.name, line)


def describe(counts: list[list[int]], origin: str) -> str:
    """Format the errors of a test; an empty text if no image was counted or there is no threshold.

    Args:
        counts: Number of images by label and label of the model, 0 for good and 1 for defective, shape (2, 2).
        origin: Origin of the threshold.
    """
    (_, false_alarms), (misses, _) = counts
    good, defective = map(sum, counts)
    if not good + defective or origin == "none":
        return ""
    rates = []
    for name, count, total in (("misses", misses, defective), ("false alarms", false_alarms, good)):
        if total:
            exact = clopper_pearson(count, total)
            rate = widened(exact) if origin == SAW_TEST_LABELS else exact
            rates.append(f"{name} {count} of {total} ({100 * rate.low:.3g} to {100 * rate.high:.3g} %)")
    return f"{good} good and {counted(defective, 'defective image')}; {', '.join(rates)}; threshold from {origin}"


def has_image_threshold(pl_module: LightningModule) -> bool:
    """Whether a model has a threshold of image scores."""
    threshold = getattr(getattr(pl_module, "post_processor", None), "image_threshold", None)
    return threshold is not None and bool(torch.isfinite(torch.as_tensor(threshold)).all())


def _origin(trainer: Trainer, pl_module: LightningModule) -> str:
    if not has_image_threshold(pl_module):
        return "none"
    post_processor = getattr(pl_module, "post_processor", None)
    mode = getattr(getattr(trainer, "datamodule", None), "val_split_mode", None)
    return origin_of(None if mode is None else str(getattr(mode, "value", mode)), post_processor)
