"""Pixel metrics of two-class segmentation, pooled over a whole data set.

All pixels of all images are counted in one 2 x 2 confusion matrix, from which the metric is computed. The result
depends neither on the batch size nor on the order of the images, and the matrices of several processes are summed.
A mean over images would be a different metric, in which images with few defect pixels have more weight.

The intersection over union of a class that neither the masks nor the predictions contain is 0/0; it is defined as 1,
since nothing was missed and nothing was predicted. Without any pixel, every metric is NaN.
"""

from typing import Any

import torch
from anomalib.metrics import AnomalibMetric
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_confusion_matrix

from anomalib_defect_plugins.core.errors import InvalidInputError


class PixelCounts(Metric):
    """Base class of pixel metrics: counts pixels by true and predicted class.

    Args:
        threshold: Value above which a score in [0, 1] is a defect; not used for predictions that are masks.
        **kwargs: Arguments of ``torchmetrics.Metric``.

    Raises:
        InvalidInputError: If the threshold is not in [0, 1].
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    counts: torch.Tensor

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= threshold <= 1:
            msg = f"The threshold of {type(self).__name__} must lie in [0, 1], got {threshold}."
            raise InvalidInputError(msg)
        self.threshold = float(threshold)
        self.add_state("counts", default=torch.zeros(2, 2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add the pixels of a batch.

        Args:
            preds: Predictions, shape (B, H, W) or (B, 1, H, W): masks (bool, or 0 and 1 of any dtype) or scores (float
                in [0, 1]).
            target: True masks, shape (B, H, W) or (B, 1, H, W), bool, or 0 and 1 of any dtype.

        Raises:
            InvalidInputError: If the shapes differ, or if a value is out of range.
        """
        preds, target = _without_channel(preds), _without_channel(target)
        self._check(preds, target)
        self.counts += binary_confusion_matrix(preds, target.bool(), threshold=self.threshold, validate_args=False)

    def compute(self) -> torch.Tensor:
        """Return the metric, a float scalar in [0, 1], or NaN if there were no pixels."""
        # Doubles, as floats do not represent counts above 2**24 (256 images of 256 x 256) exactly.
        counts = self.counts.double()
        value = self.score(counts) if counts.sum() > 0 else counts.new_tensor(torch.nan)
        return value.float()

    def score(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the metric of a confusion matrix.

        Args:
            counts: Counts, shape (2, 2), double: rows are true classes, columns predicted classes, background first.
        """
        raise NotImplementedError

    def _check(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        name = type(self).__name__
        if preds.shape != target.shape:
            msg = (
                f"{name} got predictions of shape {tuple(preds.shape)} for masks of shape {tuple(target.shape)}; "
                "resize one to the other (masks with nearest-neighbour interpolation)."
            )
            raise InvalidInputError(msg)
        if not _is_mask(target):
            msg = f"{name} needs true masks of 0 and 1; got values from {target.min()} to {target.max()}."
            raise InvalidInputError(msg)
        if not (_is_mask(preds) or (preds.is_floating_point() and _is_within_unit(preds))):
            msg = (
                f"{name} needs masks of 0 and 1 or scores in [0, 1]; got {preds.dtype} from {preds.min()} to "
                f"{preds.max()}. Normalise or threshold the scores first, as anomalib's PostProcessor does."
            )
            raise InvalidInputError(msg)


class _DefectIoU(PixelCounts):
    def score(self, counts: torch.Tensor) -> torch.Tensor:
        return class_iou(counts)[1]


class _MeanIoU(PixelCounts):
    def score(self, counts: torch.Tensor) -> torch.Tensor:
        return class_iou(counts).mean()


class _PixelAccuracy(PixelCounts):
    def score(self, counts: torch.Tensor) -> torch.Tensor:
        return counts.diagonal().sum() / counts.sum()


class DefectIoU(AnomalibMetric, _DefectIoU):  # type: ignore[misc]
    """Intersection over union of the defect pixels: TP / (TP + FP + FN), pooled over all images."""

    default_fields = ("pred_mask", "gt_mask")


class MeanIoU(AnomalibMetric, _MeanIoU):  # type: ignore[misc]
    """Mean of the intersections over union of background and defect, each pooled over all images.

    Some papers on cracks and wood call it "IoU". With few defect pixels its baseline is near a half: on CrackForest,
    predicting background everywhere yields 0.492.
    """

    default_fields = ("pred_mask", "gt_mask")


class PixelAccuracy(AnomalibMetric, _PixelAccuracy):  # type: ignore[misc]
    """Fraction of correctly classified pixels: (TP + TN) / all, pooled over all images.

    With few defect pixels its baseline is near 1: on CrackForest, predicting background everywhere yields 0.984.
    """

    default_fields = ("pred_mask", "gt_mask")


def class_iou(counts: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of each class, 1 for a class without pixels.

    Args:
        counts: Counts, shape (2, 2), float: rows are true classes, columns predicted classes.

    Returns:
        Values, shape (2,), background first.
    """
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


def _without_channel(mask: torch.Tensor) -> torch.Tensor:
    return mask.squeeze(1) if mask.ndim == 4 and mask.shape[1] == 1 else mask


def _is_mask(values: torch.Tensor) -> bool:
    return values.dtype == torch.bool or bool(((values == 0) | (values == 1)).all())


def _is_within_unit(values: torch.Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
